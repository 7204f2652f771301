//! Real sockets through namespaces shaped like a node: who answers whom, and what is on the wires.

mod affinity;
mod all_services;
mod churn;
mod collisions;
mod conntrack;
mod documents;
mod endpoints;
mod flips;
mod floods;
mod fragments;
mod guard;
mod headers;
mod icmp;
mod inspect;
mod interfaces;
mod ip_mode;
mod kube_proxy;
mod lifetimes;
mod netfilter;
mod redirects;
mod simultaneous;
mod source_ranges;
mod uplink;
mod window;
mod wiring;
