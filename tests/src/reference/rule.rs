//! The rules of the reference, by name. A rule that no history meets is a rule that no history tests.

use std::collections::BTreeMap;

/// Declares [`Rule`] with the list of all rules.
macro_rules! rules {
    ($( $(#[$meta:meta])* $variant:ident, )*) => {
        /// A rule, or one of its outcomes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule { $( $(#[$meta])* $variant, )* }

        impl Rule {
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];
        }
    };
}

rules! {
    // Frames.
    /// For the node, by the MAC of the bridge.
    ToTheBridge,
    ToNeighbour,
    ToGroup,
    /// From one port of the bridge to another.
    NeighbourMeetsFrontend,
    NeighbourMeetsConnection,
    NeighboursFragment,
    NeighboursError,
    // Packets that may open a connection.
    /// To an address that is neither a frontend nor an endpoint.
    Stranger,
    /// Of a known connection to a frontend.
    KnownRequest,
    /// A segment in mid-flow.
    MidFlowOfNobody,
    MidFlowOfConnection,
    NewPassed,
    NewRejected,
    NewDropped,
    NewBalanced,
    /// From a pod to itself.
    NewToItself,
    /// A retransmitted or second SYN.
    SynOfConnection,
    /// A pod answers itself.
    AnswerToItself,
    /// A request reaches the pod that sent it, which dialled from another address.
    CameHome,
    CameHomeDrawnPort,
    HomeTaken,
    // The fate of the connection that a first packet meets.
    Unwanted,
    OverByState,
    OverByTime,
    UnwantedWithoutBackend,
    /// The policy leaves no endpoint, but that of the connection still serves.
    DatagramsKeepBackend,
    UnwantedTcpPassed,
    WantedPassed,
    BackendGone,
    BackendGoneUdp,
    BackendDraining,
    // Source ranges.
    RangeLetsIn,
    RangeKeepsOut,
    /// Refused by the ranges of a frontend that rejects or drops.
    RangeBeforeFixed,
    /// A known connection from outside the ranges.
    RangeNotAsked,
    /// More than one prefix matches.
    RangesOverlap,
    // Affinity.
    ClientUnknown,
    ClientKept,
    /// No other backend was left to choose from.
    ClientKeptOnly,
    ClientForgotten,
    /// The client gets another backend than before.
    ClientMoved,
    ClientOfAnotherSet,
    // The backend of the hash.
    Hashed,
    HashedClient,
    /// The tuple at the backend of the hash is taken, and the port cannot change.
    HashedSctpMoves,
    // A client with affinity.
    ClientKeptUdp,
    ClientKeptSctp,
    /// The reply tuple at the client's backend is taken.
    ClientKeptCollides,
    // Source ports.
    KeptPort,
    DrawnPort,
    /// No tuple was free.
    NoPort,
    DeadInTheWay,
    /// A connection with only one half, so new that the other half may follow.
    YoungHalfInTheWay,
    // Direct connections.
    DirectNew,
    DirectKnown,
    DirectOver,
    DirectGivesWay,
    DirectDrawnPort,
    DirectSctpTaken,
    // Answers.
    AnswerOfNobody,
    Answer,
    DirectOverClosed,
    // States.
    SimultaneousOpen,
    ClientFin,
    BackendFin,
    FinBothWays,
    ClientRst,
    BackendRst,
    /// A packet after a reset.
    GoesOnAfterReset,
    /// The backend answers a client whose SYN was answered by a spoofed RST.
    AnswerAfterReset,
    /// A spoofed FIN or RST.
    GuessedEnd,
    HalfRestored,
    HalfTakenByAnother,
    // ICMP.
    MessageNoError,
    ErrorOfNobody,
    ErrorAboutRequest,
    ErrorAboutReply,
    ErrorToItself,
    ErrorByOtherEnd,
    ErrorByRouter,
    ErrorAboutDirectUntouched,
    ErrorAboutDirectRequest,
    ErrorAboutDirectReply,
    ErrorAboutFragment,
    ErrorAboutLaterFragment,
    ErrorCutShort,
    Redirected,
    // Fragments.
    FirstNoted,
    FirstPassed,
    /// It does not hold its transport header.
    FirstTooShort,
    /// No later fragment can be parked for it.
    FirstOfNobody,
    /// A first fragment for which others are parked.
    AwaitedPassed,
    AwaitedTranslated,
    AwaitedSentBack,
    AwaitedDropped,
    AwaitedTooLong,
    /// Another fragment has its place.
    WaitingLost,
    LaterOfNobody,
    LaterTooLong,
    LaterWaits,
    /// Another fragment of the datagram is parked already.
    LaterWaitsToo,
    /// The verdict on the first fragment has expired.
    LaterTooLate,
    LaterAfterPause,
    LaterPassed,
    LaterTranslated,
    LaterSentBack,
    LaterDropped,
    AtomicFragment,
    // Forwarding.
    /// A new connection to an endpoint of another node.
    NewElsewhere,
    /// All ports that were tried are taken.
    NoPortElsewhere,
    AnswerFromElsewhere,
    /// To a connection of the node itself.
    AnswerToNode,
    /// A connection of the node to an endpoint.
    OwnNew,
    OwnKnown,
    OwnDrawnPort,
    OwnWithoutPort,
    LastHop,
    LastHopUnanswered,
    LaterSentOn,
    AwaitedSentOn,
    ErrorSentOn,
    ErrorToNode,
    // Properties of packets that were changed.
    WithExtensionHeader,
    WithOptions,
    UdpWithoutSum,
    SctpTranslated,
    AtUplink,
    // Half-open connections.
    EmbryoEvicted,
    EmbryoSpared,
    EmbryoTokenBack,
    EmbryosRefilled,
}

/// How often each rule was met.
#[derive(Clone, Debug, Default)]
pub struct Hits(BTreeMap<Rule, u64>);

impl Hits {
    pub fn hit(&mut self, rule: Rule) {
        *self.0.entry(rule).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (rule, count) in &other.0 {
            *self.0.entry(*rule).or_default() += count;
        }
    }

    /// Rules that were not met.
    pub fn missed(&self) -> Vec<Rule> {
        Rule::ALL.iter().copied().filter(|rule| !self.0.contains_key(rule)).collect()
    }
}
