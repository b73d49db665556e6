//! What a detector concludes, before it is a condition.

use crate::model::{Blame, ConditionName};

/// One conclusion.
pub struct Verdict {
    /// What.
    pub name: ConditionName,
    /// Whose fault.
    pub blame: Blame,
    /// Trials.
    pub n: u64,
    /// Of these, bad.
    pub bad: u64,
    /// In words.
    pub text: String,
}
