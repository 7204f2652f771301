//! The trait through which the agent reaches the kernel.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::Port;

use super::driver::Mode;
use super::garbage::Garbage;
use super::lease::Telling;
use super::links::{Ahead, Class, Link, LinkHeader};
use super::{Error, Op, Tables, UplinkRows};

/// Access to the tables, and to the programs on the interfaces.
pub trait Dataplane {
    /// The number of words of `addresses4`, and likewise of `addresses6`.
    fn address_words(&self) -> u32;

    /// Reads the configuration tables.
    fn dump(&mut self) -> Result<Tables, Error>;

    /// Performs one step. On an error any part of the step may have been done;
    /// performing the step again is safe.
    fn perform(&mut self, op: &Op) -> Result<(), Error>;

    /// jiffies64 now, as the packet path reads it.
    fn now_jiffies(&mut self) -> Result<u64, Error>;

    /// IDs of the frontends that unexpired flows refer to.
    fn frontends_in_use(&mut self) -> Result<BTreeSet<u32>, Error>;

    /// Gives the attached hooks the programs and tables of this version. Called when the tables
    /// are complete, and again if that failed.
    fn activate(&mut self) -> Result<(), Error>;

    /// Writes which bridges interfaces are ports of, before their programs look this up.
    fn set_ports(&mut self, ports: &[Port]) -> Result<(), Error>;

    /// Writes the addresses of this node on the interfaces towards the network, in place of those written before.
    fn set_uplinks(&mut self, uplinks: &UplinkRows) -> Result<(), Error>;

    /// Attaches an interface. If it is already attached in this class, renews its programs.
    fn attach(&mut self, link: &Link) -> Result<(), Error>;

    /// Detaches all programs of ours from an interface, the driver's first.
    fn detach(&mut self, ifindex: u32) -> Result<(), Error>;

    /// The interfaces that carry programs, with their class and the link header that the programs expect.
    fn attached(&self) -> BTreeSet<(u32, Class, LinkHeader)>;

    /// Attaches the program of the driver to an interface towards the network that is attached. If it is there in this
    /// mode, renews it.
    fn attach_driver(&mut self, ifindex: u32, mode: Mode) -> Result<(), Error>;

    /// Detaches the program of the driver. Its row in `uplinks` has no [`Uplink::SENDS_FRAMES`] by then.
    ///
    /// [`Uplink::SENDS_FRAMES`]: lb_common::table::Uplink::SENDS_FRAMES
    fn detach_driver(&mut self, ifindex: u32) -> Result<(), Error>;

    /// The interfaces whose driver has a program.
    fn drivers(&self) -> BTreeMap<u32, Mode>;

    /// Why sockets are not served although they should be.
    fn socket_problem(&self) -> Option<&str>;

    /// Exchanges the programs, if need be, for such that tell `lb-agent monitor` what happens while it listens, and for
    /// others afterwards. Returns what the programs do, if that has changed.
    fn follow_monitor(&mut self) -> Result<Option<Telling>, Error>;

    /// Ends UDP sockets of the node that are connected to a backend which has gone. Returns their number.
    fn release_sockets(&mut self) -> Result<usize, Error>;

    /// Deletes the flows of datagrams to endpoints of other nodes. Returns their number.
    fn forget_forwarded_datagrams(&mut self) -> Result<usize, Error>;

    /// The hooks where other programs run before ours.
    fn ahead(&self) -> Vec<Ahead>;

    /// Forgets attachments that another program has removed, and returns whether there were any.
    fn forget_lost(&mut self) -> bool;

    /// Looks at some flows and deletes the expired ones. Returns the totals once all flows have been looked at.
    fn collect(&mut self) -> Result<Option<Garbage>, Error>;
}
