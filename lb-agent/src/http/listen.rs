//! Listening sockets with small buffers.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use nix::sys::socket::{setsockopt, sockopt::Ipv6V6Only};
use tokio::net::TcpSocket;

/// Connections in the accept queue. The kernel refuses more.
const BACKLOG: u32 = 1024;
/// The kernel's buffers for an unread answer and for a request. They count as memory of the agent.
const SEND_BUFFER_BYTES: u32 = 128 << 10;
const RECEIVE_BUFFER_BYTES: u32 = 16 << 10;

/// Who reaches a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Clients of the address's family. `0.0.0.0` and `[::]` are two listeners.
    OneFamily,
    /// As Go's listeners: `0.0.0.0` and `[::]` both mean all addresses of both families.
    BothFamilies,
}

/// Listens. Needs a runtime, but the listener may be used with any other.
pub fn listen(address: SocketAddr, reach: Reach) -> io::Result<TcpListener> {
    if reach == Reach::OneFamily || !address.ip().is_unspecified() {
        return listen_at(address, reach);
    }
    let everywhere = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port());
    match listen_at(everywhere, reach) {
        // The kernel has no IPv6.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.is_ipv4() => {
            listen_at(address, reach)
        }
        result => result,
    }
}

fn listen_at(address: SocketAddr, reach: Reach) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if address.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &(reach == Reach::OneFamily))?;
    }
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit both sizes.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn connects(host: &str, listener: &TcpListener) -> bool {
        let port = listener.local_addr().expect("it is bound").port();
        TcpStream::connect((host, port)).is_ok()
    }

    #[tokio::test]
    async fn both_families_or_one() {
        for text in ["0.0.0.0:0", "[::]:0"] {
            let listener = listen(text.parse().expect("an address"), Reach::BothFamilies).expect("a free port");
            assert!(connects("127.0.0.1", &listener) && connects("::1", &listener), "{text}");
        }
        let v6 = listen("[::]:0".parse().expect("an address"), Reach::OneFamily).expect("a free port");
        assert!(connects("::1", &v6) && !connects("127.0.0.1", &v6));
        // The same port of the other family is free.
        let port = v6.local_addr().expect("it is bound").port();
        let v4 = listen(([0, 0, 0, 0], port).into(), Reach::OneFamily).expect("a free port");
        assert!(connects("127.0.0.1", &v4));
    }
}
