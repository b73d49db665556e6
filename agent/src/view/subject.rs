//! What the view needs to know of a subject beyond its numbers: identity, name on the screen, troubles.

use super::text::{elide, width};
use crate::model::status::{ConditionStatus, SubjectStatus, TargetStatus};

/// Which subject: stays the same from one status to the next, wherever its row goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectKey {
    peer: String,
    address: Option<String>,
    service: String,
    role: String,
}

impl SubjectKey {
    /// Identity of a subject.
    pub fn of(subject: &SubjectStatus) -> Self {
        Self {
            peer: subject.peer.clone(),
            address: subject.address.clone(),
            service: subject.service.clone(),
            role: subject.role.clone(),
        }
    }

    /// Whether this is that subject.
    pub fn is(&self, subject: &SubjectStatus) -> bool {
        self.peer == subject.peer
            && self.address == subject.address
            && self.service == subject.service
            && self.role == subject.role
    }

    /// For a person, where the subject itself is gone.
    pub fn name(&self) -> String {
        let path = path(&self.peer, self.address.as_deref(), usize::MAX);
        format!("{path} {} {}", arrow(&self.role), self.service)
    }
}

/// Which way connections are opened: `→` this host is the client, `←` it is the server.
pub fn arrow(role: &str) -> &'static str {
    match role {
        "client" => "→",
        "server" => "←",
        _ => "·",
    }
}

/// Peer and address in at most `limit` columns. The address tells the paths of one peer apart, so the name gives way.
pub fn path(peer: &str, address: Option<&str>, limit: usize) -> String {
    /// A shorter rest of a name says nothing.
    const LEAST: usize = 4;
    let Some(address) = address.filter(|address| *address != peer) else { return elide(peer, limit) };
    let room = limit.saturating_sub(width(address) + 1);
    if room >= width(peer).min(LEAST) && !peer.is_empty() {
        format!("{} {address}", elide(peer, room))
    } else {
        elide(address, limit)
    }
}

/// The path of a subject.
pub fn path_of(subject: &SubjectStatus, limit: usize) -> String {
    path(&subject.peer, subject.address.as_deref(), limit)
}

/// What a condition is about, in at most `limit` columns.
pub fn target(target: &TargetStatus, limit: usize) -> String {
    /// Where a path gets less, all of the text is shortened instead.
    const LEAST: usize = 8;
    let mut rest = String::new();
    if let Some(service) = &target.service {
        rest = format!("{} {service}", arrow(target.role.as_deref().unwrap_or_default()));
    }
    if let Some(process) = &target.process {
        rest = target.pid.map_or_else(|| process.clone(), |pid| format!("{process} [{pid}]"));
    }
    for part in [&target.reason, &target.direction].into_iter().flatten() {
        rest = if rest.is_empty() { part.clone() } else { format!("{rest} {part}") };
    }
    let Some(peer) = target.peer.as_ref().or(target.address.as_ref()) else {
        return elide(if rest.is_empty() { "this node" } else { &rest }, limit);
    };
    if rest.is_empty() {
        return path(peer, target.address.as_deref(), limit);
    }
    let room = limit.saturating_sub(width(&rest) + 1);
    let name = path(peer, target.address.as_deref(), room.max(LEAST));
    elide(&format!("{name} {rest}"), limit)
}

/// Whether a condition is about this subject, or about the whole path it is on.
pub fn concerns(condition: &ConditionStatus, subject: &SubjectStatus) -> bool {
    let target = &condition.target;
    target.peer.as_deref() == Some(subject.peer.as_str())
        && target.address == subject.address
        && target.service.as_ref().is_none_or(|service| *service == subject.service)
        && target.role.as_ref().is_none_or(|role| *role == subject.role)
}

/// Whether a filter finds a subject: part of its path, service or role, whatever the case.
pub fn matches(subject: &SubjectStatus, filter: &str) -> bool {
    if filter.is_empty() {
        return true;
    }
    let text = format!("{} {} {}", path_of(subject, usize::MAX), subject.service, subject.role);
    text.to_lowercase().contains(&filter.to_lowercase())
}

/// Handshakes that came to nothing: short name, number.
pub fn failures(subject: &SubjectStatus) -> [(&'static str, u64); 5] {
    let h = &subject.handshake;
    [("ref", h.refused), ("rst", h.reset), ("tmo", h.timed_out), ("unr", h.unreachable), ("abd", h.abandoned)]
}

/// Their sum.
pub fn failed(subject: &SubjectStatus) -> u64 {
    failures(subject).iter().fold(0, |sum, (_, n)| sum.saturating_add(*n))
}

/// Begun and not finished in its time, whatever it was.
pub fn stalled(subject: &SubjectStatus) -> u64 {
    subject
        .handshake
        .stalled
        .saturating_add(subject.first_byte.stalled)
        .saturating_add(subject.response.stalled)
}

/// Share of the segments sent that were sent again for nothing less than loss; unknown where nothing was sent.
pub fn retransmitted(subject: &SubjectStatus) -> Option<f64> {
    let r = &subject.retransmitted;
    let lost =
        r.fast.saturating_add(r.timeout).saturating_add(r.tail_loss_probe).saturating_sub(r.spurious) as f64;
    let sent = subject.segments_out * subject.window;
    (sent > 0.0).then(|| (lost / sent).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::RetransmitStatus;

    #[test]
    fn the_address_outlives_the_name() {
        let show = |limit| path("us-east-lb", Some("10.77.1.3"), limit);
        assert_eq!(show(40), "us-east-lb 10.77.1.3");
        assert_eq!(show(16), "us-…lb 10.77.1.3");
        assert_eq!(show(12), "10.77.1.3");
        assert_eq!(show(7), "10.…1.3");
        assert_eq!(path("10.1.2.0/24", None, 40), "10.1.2.0/24");
    }

    #[test]
    fn targets() {
        let on_path = TargetStatus {
            peer: Some("us-east-lb".into()),
            address: Some("10.77.1.3".into()),
            service: Some("rooms-api".into()),
            role: Some("client".into()),
            ..TargetStatus::default()
        };
        assert_eq!(target(&on_path, 80), "us-east-lb 10.77.1.3 → rooms-api");
        assert_eq!(target(&on_path, 27), "us…lb 10.77.1.3 → rooms-api");
        assert_eq!(width(&target(&on_path, 9)), 9);
        let drops = TargetStatus {
            reason: Some("SOCKET_RCVBUFF".into()),
            direction: Some("receive".into()),
            ..TargetStatus::default()
        };
        assert_eq!(target(&drops, 80), "SOCKET_RCVBUFF receive");
        assert_eq!(target(&TargetStatus::default(), 80), "this node");
    }

    #[test]
    fn filters() {
        let subject = SubjectStatus {
            peer: "us-east-lb".into(),
            address: Some("10.77.1.3".into()),
            service: "Rooms-API".into(),
            role: "client".into(),
            ..SubjectStatus::default()
        };
        for filter in ["", "EAST", "77.1.3", "rooms", "client", "lb 10.77.1.3 rooms"] {
            assert!(matches(&subject, filter), "{filter}");
        }
        assert!(!matches(&subject, "server"));
    }

    #[test]
    fn retransmits_as_a_share() {
        let mut subject = SubjectStatus {
            segments_out: 100.0,
            retransmitted: RetransmitStatus { fast: 4, timeout: 3, tail_loss_probe: 2, spurious: 1 },
            window: 8.0,
            ..SubjectStatus::default()
        };
        assert_eq!(retransmitted(&subject), Some(0.01));
        subject.segments_out = 0.0;
        assert_eq!(retransmitted(&subject), None);
    }
}
