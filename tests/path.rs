//! The packet cases on the packet path compiled for the host, one test for each case, family and kind of link, named
//! `LINK::MODULE::CASE::v4`. No privilege.

use lb_tests::cases::{self, Scene};
use lb_tests::machine::HostMachine;
use libtest_mimic::Arguments;

/// A link's name, and a machine with one.
type Link = (&'static str, fn() -> HostMachine);

/// Kinds of links. On tunnels the packet begins with the network header; otherwise the cases are the same.
const LINKS: [Link; 3] = [
    ("plain", HostMachine::default),
    ("checksum-offload", HostMachine::with_checksum_offload),
    ("without-link-headers", HostMachine::without_link_headers),
];

fn main() {
    let trials = LINKS
        .into_iter()
        .flat_map(|(link, machine)| cases::trials(link, move |case, net| case(&mut Scene::new(net, &mut machine()))));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
