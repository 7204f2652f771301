//! Real sockets through namespaces shaped like a node: who answers whom, and what is on the wires.

mod wiring;
