//! What one part found.

use std::fmt::Write;

use super::{
    facts::{Facts, Weather},
    table::Table,
};

/// Tables with what they show, goals, remarks.
#[derive(Default)]
pub struct Section {
    tables: Vec<(String, Table)>,
    goals: Vec<Goal>,
    remarks: Vec<String>,
}

struct Goal {
    what: String,
    found: String,
    met: bool,
}

impl Section {
    /// One more table.
    pub fn table(&mut self, caption: impl Into<String>, table: Table) {
        self.tables.push((caption.into(), table));
    }

    /// One more goal and whether it is met.
    pub fn goal(&mut self, what: impl Into<String>, found: impl Into<String>, met: bool) {
        self.goals.push(Goal { what: what.into(), found: found.into(), met });
    }

    /// One more remark: how it was counted, what to keep in mind.
    pub fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }

    /// All of it, with where and when it was measured.
    pub fn markdown(&self, facts: &Facts, before: &Weather, after: &Weather) -> String {
        let mut text = facts.line(before, after);
        text.push('\n');
        for (caption, table) in &self.tables {
            let _ = write!(text, "\n{caption}\n\n{table}");
        }
        if !self.goals.is_empty() {
            text.push_str("\nGoals:\n\n");
        }
        for goal in &self.goals {
            let verdict = if goal.met { "met" } else { "**missed**" };
            let _ = writeln!(text, "- {}: {}: {verdict}", goal.what, goal.found);
        }
        if !self.remarks.is_empty() {
            text.push('\n');
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "{remark}");
        }
        text
    }
}
