//! Rows of `show warnings`.

use super::{Item, Row};
use crate::model::Warning;

impl Item for Warning {
    const KIND: &'static str = "Warnings";
}

impl Row for Warning {
    const TITLES: &'static [&'static str] = &["KIND", "WHERE", "FIELD", "PROBLEM", "REMEDY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.name().to_owned(),
            self.subject(),
            self.field.clone().unwrap_or_else(|| "-".to_owned()),
            self.problem.clone(),
            self.remedy.clone(),
        ]
    }
}
