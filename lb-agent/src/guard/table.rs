//! The guard's table in the kernel: `table inet lb-agent-guard-…` with six sets of addresses, one of interfaces, two
//! nat chains and three kinds of rule.
//!
//! ```text
//! chain prerouting { type nat hook prerouting priority dstnat - 1;
//!     iif @links   ip daddr . meta l4proto . th dport @workload4 fib daddr type != local dnat ip to ip daddr
//!     iif != @links ip daddr . meta l4proto . th dport @external4 fib daddr type != local dnat ip to ip daddr ... }
//! chain output { type nat hook output priority dstnat - 1;
//!     ip daddr . meta l4proto . th dport @host4 fib daddr type != local dnat ip to ip daddr ... }
//! ```

mod key;
mod rule;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::path::Path;

use lb_common::addr::{Addr, Family};
use lb_common::client::{Client, PerClient};
use lb_common::table::FrontendKey;
use netlink_bindings::nftables::{Chained, IterableDataAttrs, Request};

use super::door::{Change, Door, Found};
use super::{FamilyRows, GuardRows};
use crate::dataplane::mounts::host_path;
use crate::kube_proxy;
use crate::netlink::FIRST_SEQ;
use crate::nftables::{self, NFPROTO_INET, of_batch, of_family};
use rule::Chain;

/// Must be raised with every change of what this module writes, except elements.
const REVISION: u32 = 2;
/// Elements per message: the attribute that holds them has a 16-bit length.
const ELEMENTS_MAX: usize = 1000;
/// The table that belongs to a pin directory.
#[derive(Clone, Debug)]
pub struct Table {
    name: CString,
    /// Shown by `nft list`. A table of this version is recognised by it.
    comment: String,
}

impl Table {
    /// The name depends on the pin directory, because two agents in one network namespace have different ones.
    pub fn of_pins(pin_path: &Path) -> Self {
        let path = host_path(pin_path);
        let hash = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            // FNV-1a has the same result in every version, unlike `Hasher` of the standard library.
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let name = format!("lb-agent-guard-{:08x}", (hash >> 32) as u32 ^ hash as u32);
        Self {
            name: CString::new(name).unwrap_or_default(),
            comment: format!("lb-agent guard {REVISION}, pins in {}", path.display()),
        }
    }

    /// The name for `nft list table inet NAME`.
    pub fn name(&self) -> Cow<'_, str> {
        self.name.to_string_lossy()
    }

    fn create(&self, batch: &mut Chained<'_>) {
        let comment = key::comment(&self.comment);
        let mut table = batch.request().set_create().op_newtable_do(&of_family(NFPROTO_INET));
        table.encode().push_name(&self.name).push_userdata(&comment);
        drop(table);
        let mut id = 0;
        let mut set = |batch: &mut Chained<'_>, name: &str, key_type, key_len| {
            id += 1;
            let mut set = batch.request().set_create().op_newset_do(&of_family(NFPROTO_INET));
            let encoder = set
                .encode()
                .push_table(&self.name)
                .push_name_bytes(name.as_bytes())
                .push_key_type(key_type)
                .push_key_len(key_len)
                .push_id(id);
            if key_type == key::TYPE_IFACE_INDEX {
                encoder.push_userdata(&key::host_order());
            }
        };
        set(batch, key::LINKS, key::TYPE_IFACE_INDEX, 4);
        for family in [Family::V4, Family::V6] {
            for client in Client::ALL {
                set(batch, rule::set(client, family), key::type_of(family), key::length(family));
            }
        }
        for chain in Chain::ALL {
            let mut new = batch.request().set_create().op_newchain_do(&of_family(NFPROTO_INET));
            new.encode()
                .push_table(&self.name)
                .push_name(chain.name())
                .nested_hook()
                .push_num(chain.hook())
                .push_priority(rule::PRIORITY)
                .end_nested()
                .push_type(c"nat");
        }
        for (chain, client, family) in rule::all() {
            let mut new = batch.request().set_create().set_append().op_newrule_do(&of_family(NFPROTO_INET));
            let encoder = new.encode().push_table(&self.name).push_chain(chain.name());
            rule::expressions(encoder, client, family).push_userdata(&key::comment(&rule::comment(client, family)));
        }
    }

    fn elements(&self, batch: &mut Chained<'_>, rows: &GuardRows, verb: Verb) {
        let links: Vec<Vec<u8>> = rows.links.iter().map(|ifindex| ifindex.to_ne_bytes().to_vec()).collect();
        self.set_elements(batch, key::LINKS, &links, verb);
        self.family_elements(batch, &rows.v4, verb);
        self.family_elements(batch, &rows.v6, verb);
    }

    fn family_elements<A: Addr>(&self, batch: &mut Chained<'_>, rows: &FamilyRows<A>, verb: Verb) {
        for client in Client::ALL {
            let keys: Vec<Vec<u8>> = rows.sets.get(client).iter().map(key::bytes).collect();
            self.set_elements(batch, rule::set(client, A::FAMILY), &keys, verb);
        }
    }

    fn set_elements(&self, batch: &mut Chained<'_>, set: &str, keys: &[Vec<u8>], verb: Verb) {
        for keys in keys.chunks(ELEMENTS_MAX) {
            let request = batch.request();
            match verb {
                Verb::Add => {
                    let mut message = request.set_create().op_newsetelem_do(&of_family(NFPROTO_INET));
                    let list = message.encode().push_table(&self.name).push_set_bytes(set.as_bytes()).nested_elements();
                    key::push(list, keys);
                }
                Verb::Remove => {
                    let mut message = request.op_delsetelem_do(&of_family(NFPROTO_INET));
                    let list = message.encode().push_table(&self.name).push_set_bytes(set.as_bytes()).nested_elements();
                    key::push(list, keys);
                }
            }
        }
    }

    /// Whether the table exists, and has exactly the structure of this version apart from its elements.
    fn structure(&self) -> io::Result<Option<Structure>> {
        let mut request = Request::new().op_gettable_do(&of_family(NFPROTO_INET));
        request.encode().push_name(&self.name);
        let wanted = key::comment(&self.comment);
        let mut is_ours = false;
        let answer = nftables::ask(&request, |(_, table)| {
            is_ours = table.get_userdata().is_ok_and(|found| found == wanted) && table.get_flags().unwrap_or(0) == 0;
        });
        match answer {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            answer => answer?,
        }
        let mut found = Vec::new();
        let mut request = Request::new().op_getrule_dump(&of_family(NFPROTO_INET));
        request.encode().push_table(&self.name);
        nftables::ask(&request, |(_, rule)| {
            let chain = rule.get_chain().map(|chain| chain.to_bytes().to_vec()).unwrap_or_default();
            found.push((chain, rule.get_userdata().map(<[u8]>::to_vec).unwrap_or_default()));
        })?;
        let wanted = rule::all().map(|(chain, client, family)| {
            (chain.name().to_bytes().to_vec(), key::comment(&rule::comment(client, family)))
        });
        let is_whole = is_ours && found.into_iter().eq(wanted);
        Ok(Some(if is_whole { Structure::Whole } else { Structure::Other }))
    }

    fn keys(&self, set: &str) -> io::Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        let mut request = Request::new().op_getsetelem_dump(&of_family(NFPROTO_INET));
        request.encode().push_table(&self.name).push_set_bytes(set.as_bytes());
        nftables::ask(&request, |(_, list)| {
            let elements = list.get_elements().into_iter().flat_map(|elements| elements.get_elem());
            let value = |key: &IterableDataAttrs<'_>| key.get_value().map(<[u8]>::to_vec);
            keys.extend(elements.filter_map(|element| element.get_key().and_then(|key| value(&key)).ok()));
        })?;
        Ok(keys)
    }

    fn family_rows<A: Addr>(&self) -> io::Result<FamilyRows<A>> {
        let read = |client: Client| -> io::Result<BTreeSet<FrontendKey<A>>> {
            Ok(self.keys(rule::set(client, A::FAMILY))?.iter().filter_map(|bytes| key::read(bytes)).collect())
        };
        let (workload, host, external) = (read(Client::Workload)?, read(Client::Host)?, read(Client::External)?);
        Ok(FamilyRows { sets: PerClient { workload, host, external } })
    }

    fn batch<'a>() -> Chained<'a> {
        let mut batch = Chained::new(FIRST_SEQ);
        batch.request().op_batch_begin_do(&of_batch());
        batch
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Structure {
    Whole,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Add,
    Remove,
}

impl Door for Table {
    fn generation(&mut self) -> io::Result<u32> {
        nftables::generation()
    }

    fn read(&mut self) -> io::Result<Found> {
        match self.structure()? {
            None => return Ok(Found::Absent),
            Some(Structure::Other) => return Ok(Found::Foreign),
            Some(Structure::Whole) => {}
        }
        let link = |bytes: &Vec<u8>| Some(u32::from_ne_bytes(bytes.as_slice().try_into().ok()?));
        let links = self.keys(key::LINKS)?.iter().filter_map(link).collect();
        Ok(Found::Rows(GuardRows { v4: self.family_rows()?, v6: self.family_rows()?, links }))
    }

    fn has_kube_proxy(&mut self) -> io::Result<bool> {
        Ok(!kube_proxy::rules()?.is_empty())
    }

    fn perform(&mut self, change: &Change) -> io::Result<()> {
        let mut batch = Self::batch();
        match change {
            Change::Remove => self.destroy(&mut batch),
            Change::Replace(rows) => {
                self.destroy(&mut batch);
                self.create(&mut batch);
                self.elements(&mut batch, rows, Verb::Add);
            }
            Change::Edit { add, remove } => {
                self.elements(&mut batch, remove, Verb::Remove);
                self.elements(&mut batch, add, Verb::Add);
            }
        }
        batch.request().op_batch_end_do(&of_batch());
        nftables::transact(&batch.finalize())
    }
}

impl Table {
    /// Removes the table. A missing table is no error.
    fn destroy(&self, batch: &mut Chained<'_>) {
        let mut request = batch.request().op_destroytable_do(&of_family(NFPROTO_INET));
        request.encode().push_name(&self.name);
    }
}
