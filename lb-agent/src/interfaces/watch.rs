//! Reads interfaces by netlink: the current state, then every change in order. A lost message leads to a new listing,
//! so no change is missed.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures_channel::mpsc::UnboundedReceiver;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{AsyncSocket as _, SocketAddr};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};

use super::{Event, InterfaceAddress, LinkFacts};

/// The kernel's buffer for events, in bytes. Some thousands of links may change at once. If it overflows, interfaces
/// are listed again.
const EVENT_BUFFER_BYTES: usize = 1 << 20;

/// Why interfaces cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("opening a netlink socket: {0}")]
    Open(#[from] io::Error),
    #[error("listing {what} by netlink: {source}")]
    List { what: &'static str, source: rtnetlink::Error },
    #[error("the netlink socket was closed")]
    Closed,
}

/// A subscription to links, addresses and default routes.
pub struct Watch {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// On a socket of its own, so that answers are not lost when the event socket overflows.
    query: Handle,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The interfaces must be listed before events are read.
    Unlisted,
    Listed,
}

impl Watch {
    /// Subscribes. The future does the socket work and must be polled for as long as the watch is used.
    pub fn open() -> Result<(Self, impl Future<Output = ()> + Send + 'static), Error> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (mut events, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
        events.socket_mut().socket_mut().set_rx_buf_sz(EVENT_BUFFER_BYTES as u32)?;
        let (queries, query, _) = rtnetlink::new_connection()?;
        let work = async {
            futures_util::future::join(events, queries).await;
        };
        Ok((Self { messages, query, state: State::Unlisted }, work))
    }

    /// The next events, at least one. The first is [`Event::Everything`].
    pub async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            if self.state == State::Unlisted {
                let everything = list(&self.query).await?;
                self.state = State::Listed;
                return Ok(vec![everything]);
            }
            let first = self.messages.next().await.ok_or(Error::Closed)?;
            let mut batch = Batch::default();
            batch.take(&first.0);
            // Messages that are already queued belong to the same batch.
            while let Ok((message, _)) = self.messages.try_recv() {
                batch.take(&message);
            }
            if batch.has_gap {
                tracing::info!("netlink events were lost: interfaces are listed again");
                self.state = State::Unlisted;
                continue;
            }
            if batch.has_new_routes {
                batch.events.push(Event::DefaultRoutes(default_routes(&self.query).await?));
            }
            if !batch.events.is_empty() {
                return Ok(batch.events);
            }
        }
    }
}

/// Lists everything once.
pub async fn list_once() -> Result<Event, Error> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::select! {
        listed = list(&handle) => listed,
        () = connection => Err(Error::Closed),
    }
}

#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    has_new_routes: bool,
    has_gap: bool,
}

impl Batch {
    fn take(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        match &message.payload {
            NetlinkPayload::Overrun(_) => self.has_gap = true,
            NetlinkPayload::InnerMessage(message) => self.take_route(message),
            _ => {}
        }
    }

    fn take_route(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) if is_link(link) => {
                self.events.extend(LinkFacts::from_message(link).map(Event::Link));
            }
            RouteNetlinkMessage::DelLink(link) if is_link(link) => {
                self.events.push(Event::LinkGone(link.header.index));
            }
            RouteNetlinkMessage::NewAddress(message) => {
                let addr = address(message).map(|(ifindex, addr)| Event::Address { ifindex, addr });
                self.events.extend(addr);
            }
            RouteNetlinkMessage::DelAddress(message) => {
                let addr = address(message).map(|(ifindex, addr)| Event::AddressGone { ifindex, addr });
                self.events.extend(addr);
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                self.has_new_routes |= is_default(route);
            }
            _ => {}
        }
    }
}

/// A bridge also reports its ports, in messages of its own family, where a deletion means that the port left the
/// bridge.
fn is_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

/// This node's address in a message. Link-local addresses are ignored: they do not show what an interface leads to.
fn address(message: &AddressMessage) -> Option<(u32, InterfaceAddress)> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other end, and the prefix belongs to it.
            AddressAttribute::Local(addr) => found = Some(*addr),
            AddressAttribute::Address(addr) if found.is_none() => found = Some(*addr),
            _ => {}
        }
    }
    let is_link_local = |addr: &IpAddr| match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let addr = found.filter(|addr| !is_link_local(addr))?;
    Some((message.header.index, InterfaceAddress::new(addr, message.header.prefix_len)))
}

fn is_default(route: &RouteMessage) -> bool {
    let header = &route.header;
    header.destination_prefix_length == 0
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
}

/// Lists everything by this handle.
pub(super) async fn list(query: &Handle) -> Result<Event, Error> {
    let links = collect("links", query.link().get().execute()).await?;
    let addresses = collect("addresses", query.address().get().execute()).await?;
    Ok(Event::Everything {
        links: links.iter().filter_map(LinkFacts::from_message).collect(),
        addresses: addresses.iter().filter_map(address).collect(),
        default_routes: default_routes(query).await?,
    })
}

async fn default_routes(query: &Handle) -> Result<BTreeSet<u32>, Error> {
    let mut links = BTreeSet::new();
    let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    for family in [v4, v6] {
        let routes = collect("routes", query.route().get(family).execute()).await?;
        for attribute in routes.iter().filter(|route| is_default(route)).flat_map(|route| &route.attributes) {
            match attribute {
                RouteAttribute::Oif(ifindex) => drop(links.insert(*ifindex)),
                RouteAttribute::MultiPath(hops) => links.extend(hops.iter().map(|hop| hop.interface_index)),
                _ => {}
            }
        }
    }
    Ok(links)
}

async fn collect<T>(
    what: &'static str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, Error> {
    stream.try_collect().await.map_err(|source| Error::List { what, source })
}
