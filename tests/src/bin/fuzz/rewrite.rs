//! The fuzz target `rewrite`; see `lb_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lb_tests::fuzz::rewrite(data));
