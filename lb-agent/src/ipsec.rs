//! IPsec policies of this network namespace. A packet that is forwarded at a hook bypasses them, so it would leave in
//! clear text.

use std::fmt;
use std::io;

use rtnetlink::sys::protocols::NETLINK_XFRM;

use crate::netlink;

// include/uapi/linux/xfrm.h.
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
const XFRM_MSG_GETDEFAULT: u16 = 0x28;
const XFRMA_SPD_INFO: u16 = 1;
const XFRM_USERPOLICY_BLOCK: u8 = 1;
/// The flags of the question, and of the answer.
const FLAGS_LEN: usize = 4;
/// `struct nlattr`: length and type.
const ATTRIBUTE_LEN: usize = 4;

/// Counts the policies.
type Ask = fn() -> io::Result<u32>;

/// The policies that a node which forwards has to respect. On another node they do not matter.
#[derive(Debug)]
pub struct Policies {
    ask: Option<Ask>,
    /// None: not known yet.
    count: Option<u32>,
    has_failed: bool,
    /// They apply since a short while ago.
    is_new: bool,
}

impl Policies {
    /// Those of this namespace, if the node forwards.
    pub fn followed(is_followed: bool) -> Self {
        Self::asking(is_followed.then_some(policies as Ask))
    }

    pub fn asking(ask: Option<Ask>) -> Self {
        let mut policies = Self { ask, count: None, has_failed: false, is_new: false };
        policies.look();
        policies
    }

    /// How many there are, or what is not known, if nothing may be forwarded.
    pub const fn objection(&self) -> Option<Objection> {
        match (self.ask, self.count) {
            (None, _) | (_, Some(0)) => None,
            (Some(_), Some(count)) => Some(Objection::Policies(count)),
            (Some(_), None) => Some(Objection::Unknown),
        }
    }

    /// Asks the kernel. Returns whether the answer changed.
    pub fn look(&mut self) -> bool {
        let Some(ask) = self.ask else { return false };
        let before = self.count;
        match ask() {
            Ok(count) => (self.count, self.has_failed) = (Some(count), false),
            Err(error) => {
                if !self.has_failed {
                    tracing::warn!(%error, "the IPsec policies could not be counted, trying again every few seconds");
                }
                self.has_failed = true;
            }
        }
        let has_changed = self.count != before;
        self.is_new |= has_changed && self.objection().is_some();
        has_changed
    }

    /// Whether the policies apply since this was asked last.
    pub const fn take_new(&mut self) -> bool {
        std::mem::replace(&mut self.is_new, false)
    }
}

/// Why nothing may be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    Policies(u32),
    Unknown,
}

impl fmt::Display for Objection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policies(1) => write!(formatter, "an IPsec policy applies"),
            Self::Policies(count) => write!(formatter, "{count} IPsec policies apply"),
            Self::Unknown => write!(formatter, "it is not known whether IPsec policies apply"),
        }
    }
}

/// How many policies apply to what leaves this namespace or passes it. To block by default counts as one.
pub fn policies() -> io::Result<u32> {
    let mut policies = None;
    let asked = netlink::exchange(NETLINK_XFRM, XFRM_MSG_GETSPDINFO, 0, &[0; FLAGS_LEN], |answer| {
        policies = policies_in(answer);
    });
    match asked {
        // A kernel without IPsec.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        asked => asked?,
    }
    let policies = policies.ok_or_else(|| io::Error::other("the kernel's answer names no number"))?;
    Ok(policies + u32::from(blocks_by_default()?))
}

/// Whether packets without a policy are dropped (`ip xfrm policy setdefault`).
fn blocks_by_default() -> io::Result<bool> {
    let mut blocks = false;
    // `struct xfrm_userpolicy_default`: in, forward, out.
    let asked = netlink::exchange(NETLINK_XFRM, XFRM_MSG_GETDEFAULT, 0, &[0; 3], |answer| {
        blocks = answer.get(1..3).is_some_and(|verdicts| verdicts.contains(&XFRM_USERPOLICY_BLOCK));
    });
    match asked {
        // Linux before 5.15 has no default to ask for.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        asked => asked.map(|()| blocks),
    }
}

/// The numbers in the kernel's answer (`struct xfrmu_spdinfo`: in, out, forward, then the same of sockets).
fn policies_in(answer: &[u8]) -> Option<u32> {
    let mut attributes = answer.get(FLAGS_LEN..)?;
    loop {
        let header = attributes.get(..ATTRIBUTE_LEN)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if u16::from_ne_bytes([header[2], header[3]]) == XFRMA_SPD_INFO {
            let number = |at: usize| {
                let bytes = attributes.get(ATTRIBUTE_LEN + 4 * at..)?.first_chunk()?;
                Some(u32::from_ne_bytes(*bytes))
            };
            return Some(number(1)?.saturating_add(number(2)?));
        }
        attributes = attributes.get(length.next_multiple_of(4).max(ATTRIBUTE_LEN)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, numbers: &[u32]) -> Vec<u8> {
        let mut bytes = ((ATTRIBUTE_LEN + 4 * numbers.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        bytes
    }

    #[test]
    fn what_leaves_and_what_passes_counts() {
        let info = attribute(XFRMA_SPD_INFO, &[7, 2, 3, 9, 9, 9]);
        for before in [vec![], attribute(4, &[1, 2])] {
            assert_eq!(policies_in(&[&[0; FLAGS_LEN], &before[..], &info].concat()), Some(5));
        }
        for cut in [&[][..], &[0; FLAGS_LEN], &[0; 7], &[0; 12]] {
            assert_eq!(policies_in(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn what_is_not_known_may_apply() {
        let denied: Ask = || Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(Policies::asking(Some(denied)).objection(), Some(Objection::Unknown));
        assert_eq!(Policies::asking(Some(|| Ok(2))).objection(), Some(Objection::Policies(2)));
        for policies in [Policies::asking(Some(|| Ok(0))), Policies::asking(None)] {
            assert_eq!(policies.objection(), None);
        }
        let mut policies = Policies::asking(Some(|| Ok(0)));
        policies.ask = Some(denied);
        assert!(!policies.look() && policies.objection().is_none(), "the last answer stays");
    }
}
