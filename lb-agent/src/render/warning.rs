//! Rows of `show warnings`.

use super::{Item, Row};
use crate::filter::{Facet, Facets, Filtered};
use crate::model::Warning;

impl Item for Warning {
    const KIND: &'static str = "Warnings";
}

impl Filtered for Warning {
    const FACETS: &'static [Facet] = &[Facet::Service];

    fn facets(&self) -> Facets<'_> {
        // The object is "Service shop/web".
        let service = self.object.as_deref().and_then(|object| object.strip_prefix("Service "));
        Facets { service, ..Facets::default() }
    }
}

impl Row for Warning {
    const TITLES: &'static [&'static str] = &["KIND", "WHERE", "FIELD", "PROBLEM", "REMEDY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.name().to_owned(),
            self.subject(),
            self.field.clone().unwrap_or_else(|| "-".to_owned()),
            self.problem.clone(),
            self.remedy.clone(),
        ]
    }
}
