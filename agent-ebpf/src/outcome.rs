//! How a handshake ended.

use crate::errno;

/// Outcome of one handshake attempt, `graylag.outcome` in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// Completed.
    Established = 0,
    /// A RST answered the SYN.
    Refused = 1,
    /// The peer reset it half-way.
    Reset = 2,
    /// No answer to any SYN or SYN-ACK.
    TimedOut = 3,
    /// An ICMP error ended it.
    Unreachable = 4,
    /// The caller closed the socket before anything came back.
    Abandoned = 5,
}

impl Outcome {
    /// All outcomes, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::Established, Self::Refused, Self::Reset, Self::TimedOut, Self::Unreachable, Self::Abandoned];
    /// Number of outcomes.
    pub const COUNT: usize = Self::ALL.len();

    /// The value of `graylag.outcome`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Abandoned => "abandoned",
        }
    }

    /// How an attempt of a client ended that went from `SYN_SENT` to `CLOSE`.
    ///
    /// `error` is `sk_err`, set by `tcp_done_with_error` and its predecessors before the state changes; `soft` is
    /// `sk_err_soft`, where `tcp_v4_err` leaves an ICMP error that arrived while the caller held the socket.
    /// No error at all is a caller who closed.
    #[inline(always)]
    pub fn of_failed_connect(error: u32, soft: u32) -> Self {
        match error {
            0 if is_unreachable(soft) => Self::Unreachable,
            0 | errno::ECONNABORTED => Self::Abandoned,
            errno::ECONNREFUSED => Self::Refused,
            errno::ECONNRESET | errno::EPIPE => Self::Reset,
            errno::ETIMEDOUT => Self::TimedOut,
            _ => Self::Unreachable,
        }
    }
}

/// The errors that `icmp_err_convert` and `tab_unreach` make of an ICMP "unreachable".
#[inline(always)]
fn is_unreachable(error: u32) -> bool {
    matches!(
        error,
        errno::ENETUNREACH
            | errno::ENETDOWN
            | errno::EHOSTUNREACH
            | errno::EHOSTDOWN
            | errno::ENOPROTOOPT
            | errno::EACCES
            | errno::EPROTO
            | errno::EMSGSIZE
            | errno::ECONNREFUSED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_closes_is_told_from_every_error() {
        assert_eq!(Outcome::of_failed_connect(0, 0), Outcome::Abandoned);
        assert_eq!(Outcome::of_failed_connect(errno::ECONNREFUSED, 0), Outcome::Refused);
        assert_eq!(Outcome::of_failed_connect(errno::ETIMEDOUT, 0), Outcome::TimedOut);
        assert_eq!(Outcome::of_failed_connect(0, errno::EHOSTUNREACH), Outcome::Unreachable);
        assert_eq!(Outcome::of_failed_connect(errno::EHOSTUNREACH, 0), Outcome::Unreachable);
        assert_eq!(Outcome::of_failed_connect(errno::ECONNRESET, 0), Outcome::Reset);
    }

    #[test]
    fn counters_are_in_order() {
        for (i, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, i);
        }
    }
}
