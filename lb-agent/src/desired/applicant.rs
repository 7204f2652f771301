//! A Service that asks for room, while the tables may be too small.

use super::demand::Demand;
use super::service_rows::ServiceRows;

#[derive(Debug)]
pub struct Applicant<'a> {
    /// What the Service wants.
    pub rows: &'a ServiceRows,
    pub v4: Demand<[u8; 4]>,
    pub v6: Demand<[u8; 16]>,
    /// The tables are known to hold exactly that.
    pub is_settled: bool,
}

impl<'a> Applicant<'a> {
    pub fn of(rows: &'a ServiceRows, is_settled: bool) -> Self {
        Self { rows, v4: rows.v4.demand(), v6: rows.v6.demand(), is_settled }
    }
}
