//! What is said of two states of the tables.

use lb_common::table::{Frontend, Mode, Origin, Rule, Scopes, bpf_spin_lock};

use super::*;

fn frontend(mode: Mode, workload: Scope) -> FrontendNow {
    let frontend = Frontend {
        id: 1,
        mode,
        decided_by: Rule::IpMode,
        origin: Origin::LoadBalancer,
        state: FrontendState::Active,
        lock: bpf_spin_lock::default(),
    };
    let scopes = Scopes { workload, service_port: 3, ..Scopes::PASS };
    FrontendNow { address: "192.0.2.1:80".parse().expect("an address"), proto: Proto::TCP, frontend, scopes }
}

fn said(before: &[FrontendNow], after: &[FrontendNow]) -> Vec<(&'static str, String)> {
    let changes = changes(&by_address(before.to_vec()), &by_address(after.to_vec()));
    changes.into_iter().map(|change| (change.reason, change.detail)).collect()
}

#[test]
fn frontends_come_and_go_and_flip() {
    let (vip, proxy) = (frontend(Mode::VIP, Scope::balance(1, 1)), frontend(Mode::Proxy, Scope::PASS));
    assert_eq!(said(&[], &[vip]), [("frontend_added", "VIP".into())]);
    assert_eq!(said(&[vip], &[]), [("frontend_removed", "VIP".into())]);
    assert_eq!(said(&[vip], &[vip]), []);
    assert_eq!(
        said(&[vip], &[proxy]),
        [("mode_changed", "VIP -> Proxy (ipMode)".into()), ("clients_changed", "pods: Balance -> Pass".into())]
    );
    let draining = FrontendNow { frontend: Frontend { state: FrontendState::Draining, ..vip.frontend }, ..vip };
    assert_eq!(said(&[vip], &[draining]), [("frontend_removed", "VIP".into())], "it only waits for its flows");
}
