//! IPsec policies of this network namespace. A packet that is forwarded at a hook bypasses them, so it would leave in
//! clear text.

use std::io;

use rtnetlink::sys::protocols::NETLINK_XFRM;

use crate::netlink;

// include/uapi/linux/xfrm.h.
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
const XFRMA_SPD_INFO: u16 = 1;
/// The flags of the question, and of the answer.
const FLAGS_LEN: usize = 4;
/// `struct nlattr`: length and type.
const ATTRIBUTE_LEN: usize = 4;

/// How many policies there are, for a node that forwards. On another node they do not matter.
#[derive(Debug, Default)]
pub struct Policies {
    is_followed: bool,
    count: u32,
}

impl Policies {
    pub fn followed(is_followed: bool) -> Self {
        let mut policies = Self { is_followed, count: 0 };
        policies.look();
        policies
    }

    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Asks the kernel. Returns whether the number changed.
    pub fn look(&mut self) -> bool {
        let before = self.count;
        if self.is_followed {
            match policies() {
                Ok(count) => self.count = count,
                Err(error) => tracing::warn!(%error, "the IPsec policies could not be counted, trying again later"),
            }
        }
        self.count != before
    }
}

/// How many policies apply to what leaves this namespace or passes it.
pub fn policies() -> io::Result<u32> {
    let mut policies = 0;
    let asked = netlink::exchange(NETLINK_XFRM, XFRM_MSG_GETSPDINFO, 0, &[0; FLAGS_LEN], |answer| {
        policies = policies_in(answer).unwrap_or(0);
    });
    match asked {
        // A kernel without IPsec.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(0),
        asked => asked.map(|()| policies),
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
}
