//! The flow programs at the interfaces.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{self, SchedClassifierLinkId, TcAttachOptions},
    },
};

use super::{error::chain, files::Room, pin::Pins};

/// An interface to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether its packets have Ethernet headers; else they begin with their IP header.
    pub ethernet: bool,
}

/// What became of an interface.
pub type Watched = (String, Result<(), String>);

/// Interfaces that should be watched and are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwatched {
    /// How many.
    pub count: usize,
    /// Of so many that should be.
    pub of: usize,
    /// One of them.
    pub example: String,
    /// Why it is not.
    pub reason: String,
}

/// What is attached where.
#[derive(Default)]
pub struct Interfaces {
    attached: BTreeMap<u32, Attached>,
    refused: BTreeMap<u32, Refused>,
}

struct Attached {
    interface: Interface,
    links: Links,
}

struct Refused {
    interface: Interface,
    reason: String,
    at: Instant,
}

/// Links that are pinned are known by their names.
type Links = Vec<(&'static str, Option<SchedClassifierLinkId>)>;

/// Where it was refused it is tried again after this, and when another one goes: there may be room now.
const AGAIN: Duration = Duration::from_secs(30);

/// Programs for interfaces with and without Ethernet headers.
const ETHERNET: [(&str, TcAttachType); 2] =
    [("flow_ingress", TcAttachType::Ingress), ("flow_egress", TcAttachType::Egress)];
const BARE: [(&str, TcAttachType); 2] =
    [("flow_ingress_ip", TcAttachType::Ingress), ("flow_egress_ip", TcAttachType::Egress)];

impl Interfaces {
    /// Attaches to what is new among `wanted`, in that order as long as there is room, and lets go of what is no longer there. Returns what
    /// became of those that are new, or stand otherwise than before.
    pub fn watch(
        &mut self,
        ebpf: &mut Ebpf,
        wanted: &[Interface],
        mut pins: Option<&mut Pins>,
    ) -> Vec<Watched> {
        let named: BTreeMap<u32, &Interface> =
            wanted.iter().map(|interface| (interface.index, interface)).collect();
        let is_gone = |interface: &Interface| named.get(&interface.index) != Some(&interface);
        let mut has_more_room = false;
        for (index, attached) in self.attached.extract_if(.., |_, attached| is_gone(&attached.interface)) {
            has_more_room = true;
            detach(ebpf, index, attached.links, pins.as_deref_mut());
        }
        self.refused.retain(|_, refused| !is_gone(&refused.interface));
        let mut news = Vec::new();
        let mut room = None;
        for interface in wanted {
            let before = self.refused.get(&interface.index);
            if self.attached.contains_key(&interface.index)
                || before.is_some_and(|refused| !has_more_room && refused.at.elapsed() < AGAIN)
            {
                continue;
            }
            let room = room.get_or_insert_with(Room::now);
            let outcome = room
                .take(ETHERNET.len())
                .and_then(|()| attach_both(ebpf, interface, pins.as_deref_mut()))
                .map(|links| Attached { interface: interface.clone(), links });
            let is_news = match (&outcome, before) {
                (Err(reason), Some(refused)) => *reason != refused.reason,
                _ => true,
            };
            if is_news {
                news.push((interface.name.clone(), outcome.as_ref().map(drop).map_err(Clone::clone)));
            }
            match outcome {
                Ok(attached) => {
                    self.refused.remove(&interface.index);
                    self.attached.insert(interface.index, attached);
                }
                Err(reason) => {
                    let refused = Refused { interface: interface.clone(), reason, at: Instant::now() };
                    self.refused.insert(interface.index, refused);
                }
            }
        }
        news
    }

    /// Those that should be watched and are not.
    pub fn unwatched(&self) -> Option<Unwatched> {
        let Refused { interface, reason, .. } = self.refused.values().next()?;
        Some(Unwatched {
            count: self.refused.len(),
            of: self.refused.len() + self.attached.len(),
            example: interface.name.clone(),
            reason: reason.clone(),
        })
    }
}

/// Both directions or none: of one alone every call there would look one-way.
fn attach_both(ebpf: &mut Ebpf, interface: &Interface, mut pins: Option<&mut Pins>) -> Result<Links, String> {
    let programs = if interface.ethernet { ETHERNET } else { BARE };
    let mut links = Links::new();
    for (program, direction) in programs {
        match attach(ebpf, program, interface, direction, pins.as_deref_mut()) {
            Ok(link) => links.push((program, link)),
            Err(error) => {
                detach(ebpf, interface.index, links, pins);
                return Err(error);
            }
        }
    }
    Ok(links)
}

fn detach(ebpf: &mut Ebpf, index: u32, links: Links, mut pins: Option<&mut Pins>) {
    for (program, link) in links {
        // Where the interface itself is gone there is nothing to detach any more.
        match (link, &mut pins) {
            (Some(link), _) => {
                let _ = kept_or_loaded(ebpf, pins.as_deref_mut(), program)
                    .and_then(|program| program.detach(link).map_err(|e| chain(&e)));
            }
            (None, Some(pins)) => pins.leave_interface(program, index),
            (None, None) => {}
        }
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut SchedClassifier, String> {
    ebpf.program_mut(program)
        .ok_or("not in the kernel object")?
        .try_into()
        .map_err(|e: ProgramError| chain(&e))
}

/// The one that was taken over, where one was: two would be two.
fn kept_or_loaded<'a>(
    ebpf: &'a mut Ebpf,
    pins: Option<&'a mut Pins>,
    program: &str,
) -> Result<&'a mut SchedClassifier, String> {
    match pins.and_then(|pins| pins.classifier(program)) {
        Some(kept) => Ok(kept),
        None => classifier(ebpf, program),
    }
}

/// Behind what others have attached, whose verdicts stand: what they drop never was there, what they let pass is seen.
fn attach(
    ebpf: &mut Ebpf,
    program: &'static str,
    interface: &Interface,
    direction: TcAttachType,
    mut pins: Option<&mut Pins>,
) -> Result<Option<SchedClassifierLinkId>, String> {
    if let Some(pins) = &mut pins {
        let exchange = |link| {
            let loaded = classifier(ebpf, program)?;
            let link = loaded.attach_to_link(link).map_err(|e| chain(&e))?;
            // The pin holds it from now on.
            loaded.take_link(link).map(drop).map_err(|e| chain(&e))
        };
        if let Some(outcome) = pins.at_interface(program, interface.index, exchange) {
            return outcome.map(|()| None);
        }
    }
    let (index, interface) = (interface.index, interface.name.as_str());
    let loaded = kept_or_loaded(ebpf, pins.as_deref_mut(), program)?;
    let tcx = loaded.attach_with_options(interface, direction, TcAttachOptions::TcxOrder(LinkOrder::last()));
    match tcx {
        Ok(link) => {
            let Some(pins) = pins else { return Ok(Some(link)) };
            let loaded = kept_or_loaded(ebpf, Some(&mut *pins), program)?;
            let link = loaded.take_link(link).map_err(|e| chain(&e))?;
            let link = FdLink::try_from(link).map_err(|e| chain(&e))?;
            pins.pin_at_interface(program, index, link).map(|()| None)
        }
        // Before Linux 6.6 there is no TCX: a filter at a `clsact` qdisc does the same.
        Err(refused) => {
            // It may be there already, ours or another's; whether it is, the filter tells.
            let qdisc = tc::qdisc_add_clsact(interface);
            // A filter outlives an agent that was killed.
            let _ = tc::qdisc_detach_program(interface, direction, program);
            loaded
                .attach_with_options(interface, direction, TcAttachOptions::Netlink(tc::NlOptions::default()))
                .map(Some)
                .map_err(|error| {
                    let qdisc = qdisc.err().map_or(String::new(), |e| format!("; clsact: {}", chain(&e)));
                    format!("{}{qdisc}; TCX: {}", chain(&error), chain(&refused))
                })
        }
    }
}
