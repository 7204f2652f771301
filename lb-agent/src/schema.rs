//! The JSON schema of everything that is printed with `-o json`.

use serde_json::Value;

use crate::check::Finding;
use crate::event::{Event, Lost};
use crate::explain::{EXPLANATIONS, Explanation};
use crate::model::Warning;
use crate::render::{Documents, GuardRow, PoolRow, SourceRangeRow};
use crate::show::counters::CounterRow;
use crate::show::drops::DropRow;
use crate::show::flows::FlowRow;
use crate::show::frontends::TrafficRow;
use crate::show::interfaces::InterfaceRow;

/// The JSON schema of everything that is printed with `-o json`.
pub fn schema() -> Value {
    let documents = Documents::new()
        .list::<TrafficRow>()
        .list::<PoolRow>()
        .list::<SourceRangeRow>()
        .list::<FlowRow>()
        .list::<CounterRow>()
        .list::<DropRow>()
        .list::<InterfaceRow>()
        .list::<GuardRow>()
        .list::<Warning>()
        .list::<Finding>()
        .single::<Explanation>()
        .many::<Explanation>(EXPLANATIONS)
        .line::<Event>()
        .line::<Lost>();
    documents.schema()
}

#[cfg(test)]
mod tests {
    /// `LB_REWRITE=1` writes the file.
    #[test]
    fn the_schema_is_what_the_page_holds() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/json-schema.json");
        let schema = crate::render::pretty(&super::schema()) + "\n";
        if std::env::var_os("LB_REWRITE").is_some() {
            std::fs::write(path, &schema).expect("the checkout can be written to");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(schema == page, "docs/reference/json-schema.json is not what the code says: LB_REWRITE=1 writes it");
    }
}
