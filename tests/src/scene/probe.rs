//! Dials whose outcome `explain` predicts first.
//!
//! `explain` knows what happens to the first packet of a connection while the tables stay as they are. A dial that it
//! cannot know about says so, with the reason: [`Probe::unasked`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lb_common::addr::Proto;
use serde_json::Value;

use super::{BALANCER, Scene};
use crate::address::{FAR_LINK, Family, REMOTE_PODS, UPLINK, family};
use crate::dial::{Asking, Dial, Dialler, Held, Outcome};
use crate::printed;

/// The name in answers of a process of the node.
const HOST: &str = "host";
/// Why `explain` is not asked about a socket that sends several datagrams.
const KNOWN_FLOW: &str = "the second datagram of a socket belongs to a known flow";
/// Why `explain` is not asked by a background dialler.
const LASTING: &str = "the tables change while it dials";

/// How often `explain` was asked about dials of a scene.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Dials for which there was an answer.
    asked: usize,
    /// Answers that were held against the outcome.
    compared: usize,
    /// Answers that changed while the client dialled.
    changed: usize,
    /// Dials for which `explain` was not asked, by reason.
    unasked: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Panics if `explain` was asked and none of its answers was compared.
    pub(super) fn check(&self) {
        let counts = self.counts();
        eprintln!("explain and the dials: {counts:?}");
        assert!(counts.asked == 0 || counts.compared > 0, "no answer of explain was compared: {counts:?}");
    }
}

/// The place of a client.
#[derive(Clone, Copy)]
enum Place<'a> {
    Pod(&'a str),
    /// The balancer's network, behind the first uplink.
    Near,
    /// The network behind the second uplink.
    Far,
    /// A process of the node.
    Node,
}

/// A client whose dials are compared with what `explain` said before.
#[derive(Clone, Copy)]
pub struct Probe<'a> {
    scene: &'a Scene,
    place: Place<'a>,
    dial: Dial<'a>,
    source: Option<IpAddr>,
    /// The address that `explain` is asked about, if the client is not bound to it.
    named: Option<IpAddr>,
}

impl Scene {
    /// Dials from the client pod.
    pub fn dial(&self) -> Probe<'_> {
        self.dial_from("client")
    }

    /// Dials from a pod.
    #[track_caller]
    pub fn dial_from<'a>(&'a self, pod: &'a str) -> Probe<'a> {
        Probe {
            scene: self,
            place: Place::Pod(pod),
            dial: Dial::from(&self.lab.pod(pod).netns),
            source: None,
            named: None,
        }
    }

    /// Dials from the balancer's network.
    pub fn dial_from_near(&self) -> Probe<'_> {
        Probe { scene: self, place: Place::Near, dial: Dial::from(&self.lab.external), source: None, named: None }
    }

    /// Dials from the node itself.
    pub fn dial_from_node(&self) -> Probe<'_> {
        Probe { scene: self, place: Place::Node, dial: Dial::from(&self.lab.node), source: None, named: None }
    }

    /// Dials from the far network.
    pub fn dial_from_far(&self) -> Probe<'_> {
        Probe { scene: self, place: Place::Far, dial: Dial::from(&self.lab.far), source: None, named: None }
    }
}

impl<'a> Probe<'a> {
    /// From a given address.
    #[must_use]
    pub const fn bound(self, source: IpAddr) -> Self {
        Self { dial: self.dial.bound(source), source: Some(source), ..self }
    }

    /// From a given address and port.
    #[must_use]
    pub const fn bound_to(self, source: SocketAddr) -> Self {
        Self { dial: self.dial.bound_to(source), source: Some(source.ip()), ..self }
    }

    /// As [`Dial::patient`].
    #[must_use]
    pub const fn patient(self) -> Self {
        Self { dial: self.dial.patient(), ..self }
    }

    /// The same client; `explain` is asked about this address, as of a pod with hostNetwork.
    #[must_use]
    pub const fn named(self, address: IpAddr) -> Self {
        Self { named: Some(address), ..self }
    }

    /// The same client without a prediction, because `explain` cannot know the outcome.
    pub fn unasked(self, reason: &'static str) -> Dial<'a> {
        *self.scene.tally.counts().unasked.entry(reason).or_default() += 1;
        self.dial
    }

    /// As [`Dial::tcp`].
    #[track_caller]
    pub fn tcp(self, to: SocketAddr) -> Outcome {
        match self.hold(to) {
            Ok(held) => Outcome::Answered(held.answer),
            Err(outcome) => outcome,
        }
    }

    /// As [`Dial::hold`].
    #[track_caller]
    pub fn hold(self, to: SocketAddr) -> Result<Held, Outcome> {
        let foretold = self.foretold(Proto::TCP, to);
        let outcome = self.as_patient_as(foretold.as_ref()).hold(to);
        let told = match &outcome {
            Ok(held) => Outcome::Answered(held.answer.clone()),
            Err(outcome) => outcome.clone(),
        };
        self.compare(foretold, Proto::TCP, to, &told);
        outcome
    }

    /// As [`Dial::tcp`], with what `explain` said before.
    #[track_caller]
    pub fn explained(self, to: SocketAddr) -> (Outcome, Value) {
        let foretold = self.foretold(Proto::TCP, to).expect("a dataplane is pinned");
        let outcome = self.as_patient_as(Some(&foretold)).tcp(to);
        self.compare(Some(foretold.clone()), Proto::TCP, to, &outcome);
        (outcome, foretold)
    }

    /// As [`Dial::held`].
    #[track_caller]
    pub fn held(self, to: SocketAddr) -> Held {
        self.hold(to).unwrap_or_else(|outcome| panic!("{to} is to be answered: {outcome:?}"))
    }

    /// As [`Dial::udp`].
    #[track_caller]
    pub fn udp(self, to: SocketAddr) -> Outcome {
        let foretold = self.foretold(Proto::UDP, to);
        let outcome = self.dial.udp(to);
        self.compare(foretold, Proto::UDP, to, &outcome);
        outcome
    }

    /// As [`Dial::asking`].
    #[track_caller]
    pub fn asking(self, to: SocketAddr) -> Asking {
        self.unasked(KNOWN_FLOW).asking(to)
    }

    /// As [`Dial::repeatedly`].
    pub fn repeatedly(self, to: SocketAddr) -> Dialler {
        self.unasked(LASTING).repeatedly(to)
    }

    /// A refusal may arrive late: [`Dial::patient`].
    fn as_patient_as(self, foretold: Option<&Value>) -> Dial<'a> {
        let is_refused =
            |foretold: &Value| foretold["decision"] == "reject" || foretold["kube_proxy"]["does"] == "refuse";
        if foretold.is_some_and(is_refused) { self.dial.patient() } else { self.dial }
    }

    /// What `explain` says; `None` if no dataplane is pinned.
    #[track_caller]
    fn foretold(self, proto: Proto, to: SocketAddr) -> Option<Value> {
        // Whose the address is, `explain` must find out.
        let usual = || match self.place {
            Place::Node => HOST.to_owned(),
            Place::Pod(_) | Place::Near | Place::Far => self.usual_source(family(to.ip())).to_string(),
        };
        let from = self.named.or(self.source).map_or_else(usual, |address| address.to_string());
        let question = ["explain", "--from", &from, "--to", &format!("{to}/{}", proto.name()), "-o", "json"];
        let said = self.scene.agent.ask(&question);
        if said.code == Some(0) {
            return Some(printed::item(&said.stdout));
        }
        assert!(said.stderr.contains("no dataplane is pinned"), "{question:?}: {}", said.stderr);
        None
    }

    fn usual_source(self, family: Family) -> IpAddr {
        match self.place {
            Place::Pod(pod) => self.scene.lab.pod_address(pod, family),
            Place::Near => UPLINK.host(family, 1),
            Place::Far => FAR_LINK.host(family, 1),
            Place::Node => UPLINK.host(family, 2),
        }
    }

    /// Panics if the outcome is not as foretold, unless the tables changed meanwhile and `explain` now says another
    /// thing.
    #[track_caller]
    fn compare(self, foretold: Option<Value>, proto: Proto, to: SocketAddr, outcome: &Outcome) {
        let Some(foretold) = foretold else {
            self.unasked("no dataplane is pinned");
            return;
        };
        let holds = self.scene.is_foretold(&foretold, to, outcome);
        // The dial itself makes a flow, and session affinity remembers its backend. A changed pool has another ID.
        let is_same = |now: Value| ["decision", "frontend"].iter().all(|field| now[*field] == foretold[*field]);
        let has_changed = !holds && !self.foretold(proto, to).is_some_and(is_same);
        let mut counts = self.scene.tally.counts();
        counts.asked += 1;
        counts.compared += usize::from(!has_changed);
        counts.changed += usize::from(has_changed);
        drop(counts);
        assert!(self.is_found(&foretold), "{to}/{}: explain takes the client for {foretold:#}", proto.name());
        assert!(holds || has_changed, "{to}/{}: {outcome:?}, but explain says {foretold:#}", proto.name());
    }
}

impl Probe<'_> {
    /// Whether `explain` found whose the address is. A process of the node may be bound to any address.
    fn is_found(self, foretold: &Value) -> bool {
        let kind = &foretold["sender"]["kind"];
        match self.place {
            Place::Pod(_) => kind == "pod" && foretold["sender"]["interface"].is_string(),
            Place::Near | Place::Far => kind == "external",
            Place::Node => kind == "host",
        }
    }
}

impl Scene {
    /// Whether the outcome of a first packet is what `explain` said.
    fn is_foretold(&self, foretold: &Value, to: SocketAddr, outcome: &Outcome) -> bool {
        match foretold["decision"].as_str().expect("a word") {
            "balance" => {
                let backends = foretold["backends"].as_array().expect("a list").iter();
                let mut backends = backends.filter_map(|backend| backend.as_str()?.parse::<SocketAddr>().ok());
                outcome.who().is_some_and(|who| backends.any(|backend| self.is_at(who, backend.ip())))
            }
            "reject" => *outcome == Outcome::Refused,
            "drop" => matches!(outcome, Outcome::Silence | Outcome::Denied),
            "pass" | "not-ours" => match foretold["kube_proxy"]["does"].as_str() {
                Some("refuse") => *outcome == Outcome::Refused,
                Some("drop") => matches!(outcome, Outcome::Silence | Outcome::Denied),
                Some("translate") => outcome.who().is_some_and(|who| self.lab.has_pod(who)),
                Some("unknown") => true,
                // The packet goes where the network brings it: to the balancer, to a process of the node, or to the pod
                // that has the address.
                None | Some("nothing") => {
                    outcome.who().is_none_or(|who| who == BALANCER || who == HOST || self.is_at(who, to.ip()))
                }
                Some(other) => panic!("{other} is nothing that kube-proxy does: {foretold}"),
            },
            other => panic!("{other} is no decision: {foretold}"),
        }
    }

    /// Whether the server of this name has this address. A pod's further servers are named `pod:port`. The balancer's
    /// namespace has the pods of the other node.
    fn is_at(&self, who: &str, addr: IpAddr) -> bool {
        let pod = who.split(':').next().unwrap_or(who);
        let is_remote = who == BALANCER && REMOTE_PODS.contains(addr);
        let is_host = who == HOST && [UPLINK, FAR_LINK].iter().any(|link| link.host(family(addr), 2) == addr);
        is_remote || is_host || (self.lab.has_pod(pod) && self.lab.pod_address(pod, family(addr)) == addr)
    }
}
