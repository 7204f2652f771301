//! Which events are printed.

use crate::args::EventFilterArgs;
use crate::event::Event;

/// Whether an event is wanted.
pub fn is_wanted(filters: &EventFilterArgs, event: &Event) -> bool {
    fn any<T>(wanted: &[T], is_it: impl Fn(&T) -> bool) -> bool {
        wanted.is_empty() || wanted.iter().any(is_it)
    }
    let client = event.client.map(|client| client.ip());
    let address = event.address;
    any(&filters.kind, |kind| *kind == event.event)
        && any(&filters.reason, |reason| event.reason == reason.name())
        && any(&filters.client, |wanted| client.is_some_and(|client| wanted.contains(client)))
        && any(&filters.address, |wanted| wanted.is(address))
        && any(&filters.service, |wanted| event.service.as_deref().is_some_and(|name| wanted.is_of(name)))
}
