//! Renders rows as aligned text or as JSON, for people and programs.
//!
//! Tests compare exactly what an operator sees. Rows hold addresses and names, not map layouts.

mod document;
mod frontend;
mod guard;
mod pool;
mod source_range;
mod table;
mod warning;

use serde::Serialize;

use crate::printable::printable_json;

pub use document::{
    Documents, Item, SCHEMA, json, json_line, json_of_many, json_of_one, stream_line, yaml, yaml_of_many, yaml_of_one,
};
pub use frontend::{FrontendRow, ScopeRow, algorithm, frontends, mode, rule};
pub use guard::{GuardRow, guard};
pub use pool::{MemberRow, PoolRow, members, pools};
pub use source_range::{SourceRangeRow, source_ranges};
pub use table::{Row, text, usual};

/// Indented JSON.
pub fn pretty<T: Serialize + ?Sized>(value: &T) -> String {
    let text = serde_json::to_string_pretty(value);
    // Only plain structs of strings and numbers with string keys are rendered, which cannot fail.
    printable_json(text.unwrap_or_else(|error| unreachable!("what is printed as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use lb_common::table::Scopes;

    use super::*;
    use crate::dataplane::Tables;

    #[test]
    fn an_empty_table_is_its_titles() {
        let rows = frontends(&Tables::default());
        let expected = "ADDRESS  PROTO  MODE  RULE  ORIGIN  STATE  ID  PORT-ID  WORKLOAD  HOST  EXTERNAL\n";
        assert_eq!(text(&rows), expected);
    }

    #[test]
    fn hostile_text_stays_in_its_cell() {
        use crate::model::{Warning, WarningKind};
        let hostile = "x\u{1b}[31m\u{7}\n\u{202e}";
        let warning = Warning::new(WarningKind::Source, hostile, hostile).of(hostile).at(hostile).in_file(hostile);
        let rows = [warning];
        for printed in [text(&rows), json(&rows)] {
            assert!(!printed.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{printed}");
        }
        assert_eq!(text(&rows).lines().count(), 2);
        let document: serde_json::Value = serde_json::from_str(&json(&rows)).expect("JSON");
        assert_eq!(document["kind"], "Warnings");
        assert_eq!(serde_json::from_value::<Vec<Warning>>(document["items"].clone()).expect("warnings"), rows);
    }

    #[test]
    fn a_frontend_reads_as_a_sentence() {
        use lb_common::addr::Proto;
        use lb_common::table::{
            Backend, Frontend, FrontendKey, FrontendState, Mode, Origin, PoolKey, Rule, Scope, bpf_spin_lock,
        };
        let mut tables = Tables::default();
        let key = FrontendKey { addr: [1, 2, 3, 4], port: 80, proto: Proto::TCP, pad: 0 };
        let frontend = Frontend {
            id: 7,
            mode: Mode::VIP,
            decided_by: Rule::IpMode,
            origin: Origin::LoadBalancer,
            state: FrontendState::Active,
            lock: bpf_spin_lock::default(),
        };
        tables.v4.frontends.insert(key, frontend);
        let scopes = Scopes { workload: Scope::balance(3, 2), external: Scope::DROP, service_port: 5, ..Scopes::PASS };
        tables.scopes.insert(7, scopes);
        for slot in 0..2 {
            let backend = Backend { addr: [10, 0, 0, slot as u8], port: 8080 };
            tables.v4.pools.insert(PoolKey { pool: 3, slot }, backend);
        }
        let rows = frontends(&tables);
        assert_eq!(
            text(&rows),
            "ADDRESS     PROTO  MODE  RULE    ORIGIN        STATE   ID  PORT-ID  WORKLOAD            HOST  EXTERNAL\n\
             1.2.3.4:80  tcp    VIP   ipMode  LoadBalancer  Active  7   5        Balance pool 3 (2)  Pass  Drop\n"
        );
        assert!(
            pretty(&rows).contains(
                "\"workload\": {\n      \"action\": \"Balance\",\n      \"pool_id\": 3,\n      \"backend_count\": 2,\n      \
                 \"algorithm\": \"random\",\n"
            ),
            "{}",
            pretty(&rows)
        );
    }
}
