//! How many sockets health checks may use.

use crate::http::ConnectionLimits;

/// The limits of health checks, within the descriptors of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Listeners at one time; a Service of two families has two.
    pub listeners_max: usize,
    /// The limits of each listener.
    pub connections: ConnectionLimits,
}

/// Listeners use at most this fraction of the descriptors (1/32), and with all their connections 9/32.
const DESCRIPTORS_PART: u64 = 32;
/// All ports of the API server's default range (30000 to 32767) in both families, and more.
const LISTENERS_MAX: usize = 8192;
/// Connections of one listener: the checks of a balancer's nodes are short, and each has one request.
const CONNECTIONS_MAX: usize = 8;

impl Limits {
    /// The limits for a process with this limit of descriptors.
    pub fn within(descriptors: u64) -> Self {
        let part = usize::try_from(descriptors / DESCRIPTORS_PART).unwrap_or(usize::MAX);
        let connections =
            ConnectionLimits { connections_max: CONNECTIONS_MAX, ..ConnectionLimits::within(descriptors) };
        Self { listeners_max: part.clamp(1, LISTENERS_MAX), connections }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sockets_together_are_a_part_of_the_descriptors() {
        for descriptors in [1024, 65_536, 1 << 20] {
            let limits = Limits::within(descriptors);
            let most = limits.listeners_max * (1 + limits.connections.connections_max);
            assert!(most as u64 <= descriptors * 9 / 32, "{most} of {descriptors}");
        }
        assert_eq!(Limits::within(1 << 20).listeners_max, LISTENERS_MAX);
        assert_eq!(Limits::within(0).listeners_max, 1);
    }
}
