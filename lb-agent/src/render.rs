//! Tables for people and programs: one set of rows, as aligned text or as JSON.
//!
//! What an operator sees is what the tests compare. Rows state addresses and names, never map layouts.

mod frontend;
mod guard;
mod pool;
mod source_range;
mod warning;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

pub use frontend::{FrontendRow, ScopeRow, algorithm, frontends, mode, rule};
pub use guard::{GuardRow, guard};
pub use pool::{MemberRow, PoolRow, members, pools};
pub use source_range::{SourceRangeRow, source_ranges};

/// A row of a table.
pub trait Row: Serialize {
    /// Column titles, in capitals.
    const TITLES: &'static [&'static str];

    /// One text for each title.
    fn cells(&self) -> Vec<String>;
}

/// Aligned columns under their titles, one row a line, without trailing blanks.
pub fn text<R: Row>(rows: &[R]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(R::TITLES.iter().copied());
    table.add_rows(rows.iter().map(Row::cells));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// An array of objects.
pub fn json<R: Row>(rows: &[R]) -> String {
    let text = serde_json::to_string_pretty(rows);
    // Rows are plain structs of strings and numbers with string keys: the only things that JSON cannot refuse.
    text.unwrap_or_else(|error| unreachable!("rows of a table as JSON: {error}")) + "\n"
}

/// `1.2.3.4:80`, `[fd00::1]:80`.
fn socket(addr: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
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
        assert_eq!(json(&rows), "[]\n");
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
            json(&rows).contains(
                "\"workload\": {\n      \"action\": \"Balance\",\n      \"pool\": 3,\n      \"backends\": 2,\n      \
                 \"algorithm\": \"random\"\n    }"
            ),
            "{}",
            json(&rows)
        );
    }
}
