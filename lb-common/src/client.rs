//! The three kinds of clients, which a Service may treat differently.

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod on this node.
    Workload,
    /// A process of this node, or a hostNetwork pod.
    Host,
    /// A machine in the network.
    External,
}

impl Client {
    pub const ALL: [Self; 3] = [Self::Workload, Self::Host, Self::External];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Host => "host",
            Self::External => "external",
        }
    }
}

/// A value for each kind of client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClient<T> {
    pub workload: T,
    pub host: T,
    pub external: T,
}

impl<T> PerClient<T> {
    pub const fn get(&self, client: Client) -> &T {
        match client {
            Client::Workload => &self.workload,
            Client::Host => &self.host,
            Client::External => &self.external,
        }
    }

    pub const fn get_mut(&mut self, client: Client) -> &mut T {
        match client {
            Client::Workload => &mut self.workload,
            Client::Host => &mut self.host,
            Client::External => &mut self.external,
        }
    }

    pub const fn as_ref(&self) -> PerClient<&T> {
        PerClient { workload: &self.workload, host: &self.host, external: &self.external }
    }

    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> PerClient<U> {
        PerClient { workload: f(self.workload), host: f(self.host), external: f(self.external) }
    }

    pub fn zip<U>(self, other: PerClient<U>) -> PerClient<(T, U)> {
        PerClient {
            workload: (self.workload, other.workload),
            host: (self.host, other.host),
            external: (self.external, other.external),
        }
    }

    /// The values in the order of [`Client::ALL`].
    pub fn into_array(self) -> [T; 3] {
        [self.workload, self.host, self.external]
    }
}

impl<T: Copy> PerClient<T> {
    /// The same value for all clients.
    pub const fn same(value: T) -> Self {
        Self { workload: value, host: value, external: value }
    }
}
