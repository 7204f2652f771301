//! The annotations of Services that decide anything; no others are kept.

use std::sync::Arc;

use super::policy::{HeadersFrom, Policy, VendorAnnotations};
use super::{hazard, mode, proxy_protocol, selection, vendor};
use crate::model::AnnotationKeys;

/// The annotation keys that this policy reads.
pub fn annotation_keys(policy: &Policy) -> AnnotationKeys {
    let ours = [mode::ANNOTATION, proxy_protocol::ANNOTATION, selection::ANNOTATION].into_iter().chain(hazard::KEYS);
    let tls = vendor::header::tls_keys().filter(|_| policy.headers_from != HeadersFrom::Nothing);
    let versions = vendor::header::version_keys().filter(|_| policy.headers_from == HeadersFrom::Vendor);
    let vendors = vendor::keys().filter(|_| policy.vendor_annotations == VendorAnnotations::Honoured);
    let asked_for = policy.proxy_annotations.iter().map(|wanted| Arc::from(wanted.key.as_str()));
    ours.chain(vendors).chain(tls).chain(versions).map(Arc::from).chain(asked_for).collect()
}
