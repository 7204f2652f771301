//! The rules of the reference, by name: a rule that no history meets is one that no history tests.

use std::collections::BTreeMap;

/// Declares [`Rule`] with the list of all of them.
macro_rules! rules {
    ($( $(#[$meta:meta])* $variant:ident, )*) => {
        /// A rule, or one way in which it ends.
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
    /// To nobody that we know.
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
    /// A request reaches the pod that it is of, which dialled from another address.
    CameHome,
    CameHomeDrawnPort,
    HomeTaken,
    // What becomes of the connection that a first packet meets.
    Unwanted,
    OverByState,
    OverByTime,
    UnwantedWithoutBackend,
    UnwantedTcpPassed,
    WantedPassed,
    BackendGone,
    BackendGoneUdp,
    BackendDraining,
    // Source ranges.
    RangeLetsIn,
    RangeKeepsOut,
    /// Kept out of a frontend that rejects or drops.
    RangeBeforeFixed,
    /// A known connection from outside the ranges.
    RangeNotAsked,
    /// More than one prefix fits.
    RangesOverlap,
    // Affinity.
    ClientUnknown,
    ClientKept,
    /// There was no other to choose from.
    ClientKeptOnly,
    ClientForgotten,
    /// And gets another backend than it had.
    ClientMoved,
    ClientOfAnotherSet,
    // The backend of the hash.
    Hashed,
    HashedClient,
    /// The tuple at the backend of the hash is taken, and the port may not change.
    HashedSctpMoves,
    // What a kept client meets.
    ClientKeptUdp,
    ClientKeptSctp,
    /// The kept backend's reply tuple is taken.
    ClientKeptCollides,
    // Source ports.
    KeptPort,
    DrawnPort,
    /// No tuple was free.
    NoPort,
    DeadInTheWay,
    /// Half a connection, so new that the other half may be about to come.
    YoungHalfInTheWay,
    // Direct connections.
    DirectNew,
    DirectKnown,
    DirectOver,
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
    /// Somebody speaks after a reset.
    GoesOnAfterReset,
    /// The backend answers a client whose SYN was reset in its name.
    AnswerAfterReset,
    /// A FIN or RST of somebody who does not know the connection.
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
    /// Nobody will wait for it.
    FirstOfNobody,
    /// A first fragment that others wait for.
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
    /// Another one does so already.
    LaterWaitsToo,
    /// What became of the first one is forgotten.
    LaterTooLate,
    LaterAfterPause,
    LaterPassed,
    LaterTranslated,
    LaterSentBack,
    LaterDropped,
    AtomicFragment,
    // What packets looked like, among those that changed.
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
