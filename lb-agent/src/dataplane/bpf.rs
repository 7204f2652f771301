//! The real dataplane: opened over the pinned maps, filled, then activated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::{TestRun as _, TestRunOptions};
use lb_common::addr::{Addr, Family};
use lb_common::flow::{Timeouts as Ticks, is_expired, quiet_jiffies};
use lb_common::garbage::Due;
use lb_common::table::maps::PINNED;
use lb_common::table::{CONNECTIONS_VERSION, FlowKey, LAYOUT_VERSION, Owner, Port, Scopes};

use super::ages::is_evicting;
use super::bpf_log;
use super::driver::{DriverLinks, Mode};
use super::garbage::{self, Garbage, Walk};
use super::hooks::Hooks;
use super::lease::Telling;
use super::links::{Ahead, Attached, Attachment, Class, Link, LinkHeader};
use super::maps::{FamilyMaps, Maps, settle};
use super::memory::Memory;
use super::pins::{self, PinPath, dump};
use super::replaced::Replaced;
use super::shares::Bound;
use super::sockets::{self, SocketHook, SocketLb, SocketLinks};
use super::sys::{self, Hook};
use super::transit::forget_datagrams;
use super::{Dataplane, Error, Monitor, Op, Refusal, Settings, Sizes, Tables, UplinkRows, Write, object, sock_diag};

/// The kernel's tables and programs.
///
/// Dropping this value changes nothing in the kernel: the pins keep the programs forwarding.
pub struct BpfDataplane {
    path: PinPath,
    settings: Settings,
    ebpf: Ebpf,
    maps: Maps,
    /// Maps of another shape or layout, used by the attached programs until [`Dataplane::activate`]. Until then the new
    /// programs look flows up in these maps as well.
    replaced: Option<Replaced>,
    /// The maps that are still pinned apart from those that the attached programs use, until [`Dataplane::activate`]. They
    /// move in the order of [`PINNED`], of which this is the reverse. `owner`, with the layout version, is the last.
    apart: Vec<&'static str>,
    hooks: Hooks,
    sockets: SocketLinks,
    drivers: DriverLinks,
    /// Why sockets are not served although they should be.
    socket_problem: Option<String>,
    /// Whether members were deleted since sockets were last released.
    has_lost_members: bool,
    /// Whether the attached programs use these maps.
    is_active: bool,
    /// Whether the loaded programs tell `lb-agent monitor` what happens.
    tells: bool,
    /// Logs what the loaded programs write (`--bpf-log`).
    log: Option<bpf_log::Reader>,
    jiffies_per_sec: u32,
    /// The position of the walk that deletes expired flows.
    walk: Walk,
    _lock: OwnedFd,
}

impl BpfDataplane {
    /// Loads the programs over the pinned maps. If there are no pinned maps or their shape differs, makes new maps. The
    /// attached programs keep running until [`Dataplane::activate`].
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let path = PinPath::new(&settings.pin_path);
        path.prepare()?;
        let lock = path.lock()?;
        let netns_cookie = path.check_owner()?;
        let jiffies_per_sec =
            sys::jiffies_per_sec().map_err(|source| Error::Kernel { op: "asking for the kernel's tick", source })?;
        path.finish_move()?;
        let owner = path.owner()?;
        let is_same_layout = owner.is_none_or(|owner| owner.layout_version == LAYOUT_VERSION);
        let is_first = owner.is_none();
        if is_first {
            // Maps of an interrupted first start, perhaps with other sizes. No program is attached to them.
            tell_left(&pins::remove_maps_but(&path.maps(), &[])?);
        }
        let is_adoptable = is_first || (is_same_layout && object::is_adoptable(&path.maps(), &settings.sizes)?);
        // An agent that was killed while it replaced maps may have attached programs that make flows in the new ones.
        let is_resumed =
            !is_adoptable && path.has_complete_next()? && object::is_adoptable(&path.maps_next(), &settings.sizes)?;
        if !is_resumed {
            tell_left(&pins::remove_maps(&path.maps_next())?);
        }
        let directory = if is_adoptable { path.maps() } else { path.maps_next() };
        if is_first || !is_adoptable {
            tell_shortage(&settings.sizes)?;
        }
        let create = |source| Error::Path { op: "creating", path: directory.clone(), source };
        fs::create_dir_all(&directory).map_err(create)?;
        let replaced = match owner.filter(|_| !is_adoptable) {
            Some(owner) => open_replaced(path.maps(), &owner)?,
            None => None,
        };
        if let Some(replaced) = &replaced {
            replaced.keep_notes(&directory)?;
        }
        let previous = replaced.as_ref().map(Replaced::directory);
        let mut ebpf = object::load(&directory, settings, jiffies_per_sec, previous)?;
        let log = bpf_log::follow(&mut ebpf, settings.bpf_log)?;
        let maps = Maps::open(&directory)?;
        maps.set_owner(&Owner {
            netns_cookie,
            layout_version: LAYOUT_VERSION,
            connections_version: CONNECTIONS_VERSION,
            jiffies_per_sec,
        })?;
        let (hooks, sockets, drivers) =
            Hooks::adopt(path.root(), &path.links(), &path.maps(), settings.attach, settings.xdp)?;
        let tells = settings.monitor == Monitor::On;
        let settings = settings.clone();
        let walk = Walk::default();
        let apart = if is_adoptable { Vec::new() } else { PINNED.iter().rev().map(|map| map.name).collect() };
        Ok(Self {
            path,
            settings,
            ebpf,
            maps,
            replaced,
            apart,
            hooks,
            sockets,
            drivers,
            socket_problem: None,
            // Members may have gone while no agent ran.
            has_lost_members: true,
            is_active: false,
            tells,
            log,
            jiffies_per_sec,
            walk,
            _lock: lock,
        })
    }

    /// Copies what is known of UDP sockets from the maps that are being replaced.
    fn copy_sockets(&self) -> Result<(), Error> {
        self.replaced.as_ref().map_or(Ok(()), |replaced| replaced.copy_sockets(&self.maps))
    }

    /// Gives every attached hook its program, egress first: the egress programs must know every flow that the ingress
    /// programs make. Drivers come last: their programs leave to tc what they do not know.
    fn give_programs(&mut self) -> Result<(), Error> {
        self.load_programs(&self.hooks.attached())?;
        for hook in [Hook::Egress, Hook::Ingress] {
            for attachment in self.hooks.attached().into_iter().filter(|attachment| attachment.hook == hook) {
                self.give_program(attachment)?;
                let now_jiffies = self.now_jiffies()?;
                self.maps.ages.adopted(attachment, now_jiffies)?;
            }
        }
        self.give_driver_programs()
    }

    /// Gives the attached drivers their program, or removes ours: an old program must not stay over tables that are no
    /// longer written, and tc serves without it.
    fn give_driver_programs(&mut self) -> Result<(), Error> {
        for (ifindex, mode) in self.drivers.attached() {
            if let Err(error) = self.give_driver_program(ifindex, mode) {
                self.drivers.detach(ifindex)?;
                tracing::warn!(ifindex, %error, "detached from the driver, whose program could not be exchanged");
            }
        }
        Ok(())
    }

    fn give_driver_program(&mut self, ifindex: u32, mode: Mode) -> Result<(), Error> {
        let program = object::driver_program(&mut self.ebpf, mode.program())?;
        let program =
            program.fd().map_err(|error| Refusal::NotLoaded { program: mode.program(), reason: error.to_string() })?;
        self.drivers.attach(ifindex, mode, program.as_fd()).map(drop)
    }

    /// Gives the cgroup hooks their programs, or removes ours. A failure concerns sockets only: interfaces are served. Old
    /// programs must not stay, as their maps are no longer written.
    fn give_socket_programs(&mut self) {
        let given = match self.settings.sockets {
            SocketLb::Off => self.sockets.detach(),
            SocketLb::Host | SocketLb::All => self.attach_sockets(),
        };
        self.socket_problem = given.err().map(|error| error.to_string());
        if self.socket_problem.is_some()
            && let Err(error) = self.sockets.detach()
        {
            tracing::warn!(%error, "programs for sockets may stay attached over tables that are no longer written");
        }
    }

    fn attach_sockets(&mut self) -> Result<(), Error> {
        // All are loaded first: while they are exchanged, a dial may be translated by one and shown by another.
        for hook in SocketHook::ALL {
            object::socket_program(&mut self.ebpf, hook)?;
        }
        let opening = |source| Error::Kernel { op: "opening the root cgroup", source };
        let root = if self.sockets.is_complete() { None } else { Some(sockets::open_root().map_err(opening)?) };
        for hook in SocketHook::ALL {
            let program = object::socket_program(&mut self.ebpf, hook)?;
            let program = program
                .fd()
                .map_err(|error| Refusal::NotLoaded { program: hook.program(), reason: error.to_string() })?;
            self.sockets.attach(hook, program.as_fd(), root.as_ref().map(AsFd::as_fd))?;
        }
        Ok(())
    }

    /// Loads the programs for these attachments that are not loaded yet.
    fn load_programs(&mut self, attachments: &[Attachment]) -> Result<(), Error> {
        let names: BTreeSet<_> = attachments.iter().map(Attachment::program).collect();
        object::load_programs(&mut self.ebpf, &names.into_iter().collect::<Vec<_>>())
    }

    /// Exchanges the programs of all hooks for programs that tell what happens, or for silent ones. They are loaded
    /// first: if that fails, the others stay. A hook that keeps its program when another one fails does no harm, as all
    /// use the same tables.
    fn exchange(&mut self, tells: bool) -> Result<(), Error> {
        let monitor = if tells { Monitor::On } else { Monitor::Off };
        let settings = Settings { monitor, ..self.settings.clone() };
        let mut ebpf = object::load(&self.path.maps(), &settings, self.jiffies_per_sec, None)?;
        let serves_sockets = self.settings.sockets != SocketLb::Off && self.socket_problem.is_none();
        if serves_sockets {
            for hook in SocketHook::ALL {
                object::socket_program(&mut ebpf, hook)?;
            }
        }
        let former = std::mem::replace(&mut self.ebpf, ebpf);
        if let Err(error) = self.load_programs(&self.hooks.attached()) {
            self.ebpf = former;
            return Err(error);
        }
        self.give_programs()?;
        self.log = bpf_log::follow(&mut self.ebpf, self.settings.bpf_log)?;
        if serves_sockets { self.attach_sockets() } else { Ok(()) }
    }

    /// The maps, for counters and flows.
    pub const fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The loaded object, for measuring and testing its programs.
    pub const fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Deletes the flows that are due. Returns their number.
    pub fn collect_keys<A: Addr>(&mut self, due: Due, keys: &[FlowKey<A>]) -> Result<u64, Error> {
        garbage::collect(&mut self.ebpf, due, keys)
    }

    fn give_program(&mut self, attachment: Attachment) -> Result<(), Error> {
        let program = object::program_mut(&mut self.ebpf, attachment.program())?;
        let program: BorrowedFd<'_> = program
            .fd()
            .map_err(|error| Refusal::NotLoaded { program: attachment.program(), reason: error.to_string() })?
            .as_fd();
        if self.hooks.attach(attachment, program)? == Attached::Anew {
            let now_jiffies = self.now_jiffies()?;
            self.maps.ages.attached(attachment, now_jiffies)?;
        }
        Ok(())
    }

    fn store_scopes(&mut self, rows: impl Iterator<Item = (u32, Scopes)>) -> Result<(), Error> {
        for (id, scopes) in rows {
            if !self.maps.scopes.store(id, &scopes) {
                let max = self.maps.scopes.len();
                return Err(Error::Full { map: "scopes", max, setting: "--frontends-max" });
            }
        }
        Ok(())
    }

    fn collect_in_use<A: Addr>(
        &self,
        maps: &FamilyMaps<A>,
        now_jiffies: u64,
        ids: &mut BTreeSet<u32>,
    ) -> Result<(), Error> {
        let ticks = self.ticks();
        for (key, flow) in maps.flows.dump()? {
            let quiet = quiet_jiffies(flow.last_seen_jiffies, now_jiffies);
            // A flow that was reset counts too: it may become established again.
            if !is_expired(key.proto, flow.state, quiet, &ticks) {
                ids.insert(flow.frontend);
            }
        }
        Ok(())
    }

    fn ticks(&self) -> Ticks {
        let jiffies = |secs: u32| u64::from(secs) * u64::from(self.jiffies_per_sec);
        let timeouts = &self.settings.timeouts;
        Ticks {
            tcp_syn_jiffies: jiffies(timeouts.tcp_syn_secs),
            tcp_established_jiffies: jiffies(timeouts.tcp_established_secs),
            tcp_closing_jiffies: jiffies(timeouts.tcp_closing_secs),
            udp_jiffies: jiffies(timeouts.udp_secs),
            second_jiffies: jiffies(1),
        }
    }
}

/// Warns if the new tables exceed the memory limit: the kernel would kill the process without a message.
fn tell_shortage(sizes: &Sizes) -> Result<(), Error> {
    if let Some((found, remedy)) = Memory::of(sizes)?.shortage() {
        tracing::warn!("{found}: {remedy}");
    }
    Ok(())
}

/// Logs the paths that are not ours and were left in place.
fn tell_left(removed: &pins::Removed) {
    for path in &removed.left {
        tracing::warn!(path = %path.display(), "not a map of lb-agent: left in place");
    }
}

/// The maps that new ones replace. `None` with a warning if connections in VIP mode end with them.
fn open_replaced(directory: PathBuf, owner: &Owner) -> Result<Option<Replaced>, Error> {
    let replaced = Replaced::open(directory, owner)?;
    if replaced.is_none() {
        let (found, wanted) = (owner.connections_version, CONNECTIONS_VERSION);
        tracing::warn!(
            "the pinned tables keep connections as version {found} does, this program as {wanted}: open connections in VIP \
             mode end, and clients must dial again"
        );
    }
    Ok(replaced)
}

impl Dataplane for BpfDataplane {
    fn address_words(&self) -> u32 {
        self.maps.v4.addresses.words()
    }

    fn dump(&mut self) -> Result<Tables, Error> {
        dump(&self.maps)
    }

    fn perform(&mut self, op: &Op) -> Result<(), Error> {
        self.has_lost_members |= op.deletes_members();
        match op {
            Op::V4(op) => self.maps.begin_counts(&self.maps.v4, op).and_then(|()| self.maps.v4.perform(op)),
            Op::V6(op) => self.maps.begin_counts(&self.maps.v6, op).and_then(|()| self.maps.v6.perform(op)),
            Op::Scopes(Write::Upsert(rows)) => self.store_scopes(rows.iter().copied()),
            Op::Scopes(Write::Delete(ids)) => self.store_scopes(ids.iter().map(|id| (*id, Scopes::PASS))),
            Op::FrontendAges(write) => self.maps.ages.write_frontends(write),
            Op::Settle => settle(),
        }
    }

    fn now_jiffies(&mut self) -> Result<u64, Error> {
        let kernel = |source| Error::Kernel { op: "asking for the time", source };
        let estimate = sys::estimate_jiffies(self.jiffies_per_sec).map_err(kernel)?;
        let program = object::program_mut(&mut self.ebpf, object::TICK_PROGRAM)?;
        let packet = [0_u8; 64];
        let options = TestRunOptions { data_in: Some(&packet), ..TestRunOptions::default() };
        let run = program.test_run(options).map_err(|error| kernel(std::io::Error::other(error)))?;
        // The program returns the exact low half. The high half is the one that brings the result nearest to the
        // estimate.
        let ahead = run.return_value.wrapping_sub(estimate as u32).cast_signed();
        Ok(estimate.wrapping_add_signed(i64::from(ahead)))
    }

    fn frontends_in_use(&mut self) -> Result<BTreeSet<u32>, Error> {
        let mut ids = BTreeSet::new();
        let now_jiffies = self.now_jiffies()?;
        self.collect_in_use(&self.maps.v4, now_jiffies, &mut ids)?;
        self.collect_in_use(&self.maps.v6, now_jiffies, &mut ids)?;
        Ok(ids)
    }

    /// No flow is missed while maps of another size or layout are replaced. The first new programs also look flows up in the
    /// replaced maps, where old programs that are still attached keep making flows. When every hook has a new program,
    /// the flows are copied, and programs without the second lookup are attached.
    fn activate(&mut self) -> Result<(), Error> {
        if let Some(replaced) = &self.replaced {
            for attachment in self.hooks.attached() {
                self.maps.expect_flows(attachment.ifindex)?;
            }
            self.maps.expect_uplink_flows(replaced.uplink_ports()?, self.settings.snat_ports)?;
        }
        self.give_programs()?;
        let (next, current) = (self.path.maps_next(), self.path.maps());
        if let Some(replaced) = &self.replaced {
            // A former program may still run on another CPU, and make a flow after the copy.
            settle()?;
            let bound = Bound::of(&self.settings.sizes, self.maps.cpus);
            let counts = replaced.copy_flows(&self.maps, bound)?;
            let walked_jiffies = sys::estimate_jiffies(self.jiffies_per_sec)
                .map_err(|source| Error::Kernel { op: "asking for the time", source })?;
            self.maps.shares.recount(&counts, walked_jiffies)?;
            self.ebpf = object::load(&next, &self.settings, self.jiffies_per_sec, None)?;
            self.log = bpf_log::follow(&mut self.ebpf, self.settings.bpf_log)?;
            self.give_programs()?;
        }
        self.copy_sockets()?;
        self.give_socket_programs();
        // Also what the old programs wrote meanwhile.
        self.copy_sockets()?;
        self.replaced = None;
        self.is_active = true;
        if self.apart.is_empty() {
            return Ok(());
        }
        while let Some(name) = self.apart.last() {
            self.path.put_in_use(name)?;
            self.apart.pop();
        }
        let names: Vec<_> = PINNED.iter().map(|map| map.name).collect();
        tell_left(&pins::remove_maps_but(&current, &names)?);
        pins::remove_maps(&next)?;
        Ok(())
    }

    fn set_ports(&mut self, ports: &[Port]) -> Result<(), Error> {
        self.maps.set_ports(ports)
    }

    fn set_uplinks(&mut self, wanted: &UplinkRows) -> Result<(), Error> {
        self.maps.uplinks.as_ref().map_or(Ok(()), |table| super::uplinks::replace(table, wanted))
    }

    fn attach(&mut self, link: &Link) -> Result<(), Error> {
        let attachments = link.attachments();
        self.load_programs(&attachments)?;
        attachments.into_iter().try_for_each(|attachment| self.give_program(attachment))
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        self.drivers.detach(ifindex)?;
        // Attachments are sorted ingress first: no request may be translated if its reply is not.
        for attachment in self.hooks.attached() {
            if attachment.ifindex == ifindex {
                self.hooks.detach(&attachment)?;
            }
        }
        Ok(())
    }

    fn attached(&self) -> BTreeSet<(u32, Class, LinkHeader)> {
        let attachments = self.hooks.attached();
        attachments.iter().map(|attachment| (attachment.ifindex, attachment.class, attachment.header)).collect()
    }

    fn attach_driver(&mut self, ifindex: u32, mode: Mode) -> Result<(), Error> {
        self.give_driver_program(ifindex, mode)
    }

    fn detach_driver(&mut self, ifindex: u32) -> Result<(), Error> {
        self.drivers.detach(ifindex)
    }

    fn drivers(&self) -> BTreeMap<u32, Mode> {
        self.drivers.attached()
    }

    fn socket_problem(&self) -> Option<&str> {
        self.socket_problem.as_deref()
    }

    fn follow_monitor(&mut self) -> Result<Option<Telling>, Error> {
        let Some(lease) = self.maps.lease.as_ref().filter(|_| self.is_active) else { return Ok(None) };
        let wanted = match self.settings.monitor {
            Monitor::Auto => lease.is_live()?,
            Monitor::On => true,
            Monitor::Off => false,
        };
        let telling = match (self.settings.monitor, wanted) {
            (Monitor::Off, _) => Telling::Refused,
            (_, true) => Telling::Telling,
            (_, false) => Telling::Silent,
        };
        let is_exchanged = wanted != self.tells;
        if is_exchanged {
            self.exchange(wanted)?;
            self.tells = wanted;
        }
        if let Some(lease) = &self.maps.lease {
            lease.set_telling(telling)?;
        }
        Ok(is_exchanged.then_some(telling))
    }

    fn release_sockets(&mut self) -> Result<usize, Error> {
        if !self.is_active || !self.has_lost_members || self.settings.sockets == SocketLb::Off {
            return Ok(0);
        }
        let mut gone = self.maps.v4.sockets_without_backend(&self.maps.scopes)?;
        gone.append(&mut self.maps.v6.sockets_without_backend(&self.maps.scopes)?);
        let failed = |source| Error::Kernel { op: "ending UDP sockets whose backend has gone", source };
        let released = if gone.is_empty() { 0 } else { sock_diag::destroy(&gone).map_err(failed)? };
        // Not before: after a failure, the next step tries again.
        self.has_lost_members = false;
        Ok(released)
    }

    fn forget_forwarded_datagrams(&mut self) -> Result<usize, Error> {
        Ok(forget_datagrams(&self.maps.v4.flows)? + forget_datagrams(&self.maps.v6.flows)?)
    }

    fn ahead(&self) -> Vec<Ahead> {
        self.hooks.ahead()
    }

    fn forget_lost(&mut self) -> bool {
        self.hooks.forget_lost()
    }

    fn collect(&mut self) -> Result<Option<Garbage>, Error> {
        let (now_jiffies, ticks) = (self.now_jiffies()?, self.ticks());
        let found = self.walk.step(&mut self.ebpf, &self.maps, (now_jiffies, &ticks))?;
        let Some((mut garbage, mut counts)) = found else { return Ok(None) };
        let Garbage { entries4, entries6, .. } = garbage;
        for (family, entries) in [(Family::V4, entries4), (Family::V6, entries6)] {
            if is_evicting(entries, self.settings.sizes.flows_max, self.maps.cpus) {
                self.maps.ages.evicted(family, now_jiffies + ticks.tcp_established_jiffies)?;
            }
        }
        let bound = Bound::of(&self.settings.sizes, self.maps.cpus);
        let [crowded4, crowded6] = [Family::V4, Family::V6].map(|family| bound.crowded(&counts, family));
        let (surplus4, surplus6) = (self.maps.v4.surplus(&crowded4)?, self.maps.v6.surplus(&crowded6)?);
        // The dump is older than the latest packets: a tuple may belong to a new connection by now.
        let due = Due::QuietSince(now_jiffies);
        garbage.trimmed = self.collect_keys(due, &surplus4)? + self.collect_keys(due, &surplus6)?;
        counts.subtract(&crowded4, Family::V4);
        counts.subtract(&crowded6, Family::V6);
        self.maps.shares.recount(&counts, now_jiffies)?;
        garbage.crowded = crowded4.into_keys().chain(crowded6.into_keys()).collect();
        Ok(Some(garbage))
    }
}
