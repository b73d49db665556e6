//! Events: a bounded queue, emptied at once and kept while the collector is away.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::{
    Event, Number, Outcome, Signal,
    client::{Client, Failure},
    encode::{attribute, attributes, scope},
    resource::of_pod,
    retry::Backoff,
};

/// Events kept while the collector is away: hours of a bad day, a few hundred KiB.
const MOST_KEPT: usize = 1024;
/// Events in one request.
const MOST_SENT: usize = 128;

/// Events that have not left yet.
#[derive(Debug, Default)]
pub struct Queue {
    events: Mutex<VecDeque<Event>>,
    added: Notify,
}

impl Queue {
    /// Adds an event; returns how many had to make room for it.
    pub fn push(&self, event: Event) -> u64 {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest goes: a router wants the state of now, a person has the local API for the past.
        let dropped = u64::from(events.len() >= MOST_KEPT && events.pop_front().is_some());
        events.push_back(event);
        drop(events);
        self.added.notify_one();
        dropped
    }

    fn take(&self) -> Vec<Event> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let n = events.len().min(MOST_SENT);
        events.drain(..n).collect()
    }

    /// Puts back what did not leave, before what came since; returns how many found no room.
    fn put_back(&self, unsent: Vec<Event>) -> u64 {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        for event in unsent.into_iter().rev() {
            if events.len() < MOST_KEPT {
                events.push_front(event);
            } else {
                dropped += 1;
            }
        }
        dropped
    }

    async fn next(&self) -> Vec<Event> {
        loop {
            let events = self.take();
            if !events.is_empty() {
                return events;
            }
            self.added.notified().await;
        }
    }
}

/// Sends events until it is stopped, then what is left, once.
pub async fn run(
    queue: Arc<Queue>,
    client: Client,
    resource: Resource,
    outcome: Arc<Outcome>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut backoff = Backoff::default();
    let mut stopping = false;
    loop {
        let events = if stopping {
            queue.take()
        } else {
            tokio::select! {
                events = queue.next() => events,
                _ = stopped.wait_for(|stop| *stop) => { stopping = true; continue; }
            }
        };
        if events.is_empty() {
            return;
        }
        let n = events.len() as u64;
        match client.send(&request(&events, &resource)).await {
            Ok(accepted) => {
                outcome.lose(accepted.rejected);
                if accepted.rejected > 0 {
                    let said = format!("{} events rejected: {}", accepted.rejected, accepted.said);
                    outcome.refused(Signal::Events, said);
                } else {
                    outcome.set(Signal::Events, None);
                }
                backoff = Backoff::default();
            }
            Err(Failure::Refused(reason)) => {
                outcome.lose(n);
                outcome.refused(Signal::Events, reason);
            }
            Err(Failure::Retry { reason, .. }) if stopping => {
                outcome.lose(n);
                outcome.set(Signal::Events, Some(reason));
            }
            Err(Failure::Retry { reason, after }) => {
                outcome.set(Signal::Events, Some(reason));
                outcome.lose(queue.put_back(events));
                let is_over = async { drop(stopped.wait_for(|stop| *stop).await) };
                tokio::select! {
                    () = sleep(backoff.next(after).min(Duration::from_secs(60))) => {}
                    () = is_over => stopping = true,
                }
            }
        }
    }
}

fn request(events: &[Event], resource: &Resource) -> ExportLogsServiceRequest {
    let observed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let observed = u64::try_from(observed.as_nanos()).unwrap_or(u64::MAX);
    let of_resource = |events: &[Event]| ResourceLogs {
        resource: Some(events[0].pod.as_ref().map_or_else(|| resource.clone(), |pod| of_pod(resource, pod))),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            log_records: events.iter().map(|event| record(event, observed)).collect(),
            schema_url: String::new(),
        }],
        schema_url: String::new(),
    };
    // In their order: those that follow each other and are about the same go together.
    let together = events.chunk_by(|one, next| one.pod == next.pod);
    ExportLogsServiceRequest { resource_logs: together.map(of_resource).collect() }
}

fn record(event: &Event, observed: u64) -> LogRecord {
    let severity = if event.bad { SeverityNumber::Warn } else { SeverityNumber::Info };
    let mut all = attributes(event.attributes.clone());
    all.extend(event.numbers.iter().map(|(name, number)| {
        let value = match number {
            Number::Whole(n) => any_value::Value::IntValue(i64::try_from(*n).unwrap_or(i64::MAX)),
            Number::Fraction(share) => any_value::Value::DoubleValue(*share),
        };
        attribute(name, value)
    }));
    LogRecord {
        time_unix_nano: event.unix_nanos,
        observed_time_unix_nano: observed,
        severity_number: severity as i32,
        severity_text: if event.bad { "WARN" } else { "INFO" }.into(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(event.body.clone())) }),
        attributes: all,
        event_name: event.name.into(),
        ..LogRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize) -> Event {
        Event {
            name: "graylag.condition.changed",
            bad: true,
            body: n.to_string(),
            unix_nanos: n as u64,
            attributes: Vec::new(),
            numbers: vec![
                ("graylag.evidence.n", Number::Whole(7)),
                ("graylag.evidence.low", Number::Fraction(0.5)),
            ],
            pod: None,
        }
    }

    fn bodies(queue: &Queue) -> Vec<String> {
        queue.events.lock().unwrap().iter().map(|event| event.body.clone()).collect()
    }

    #[test]
    fn the_oldest_makes_room_and_is_counted() {
        let queue = Queue::default();
        let dropped: u64 = (0..MOST_KEPT + 3).map(|n| queue.push(event(n))).sum();
        assert_eq!((dropped, bodies(&queue).len(), bodies(&queue)[0].as_str()), (3, MOST_KEPT, "3"));
    }

    #[test]
    fn what_did_not_leave_stays_first_in_its_order() {
        let queue = Queue::default();
        (0..3).for_each(|n| assert_eq!(queue.push(event(n)), 0));
        let taken = queue.take();
        queue.push(event(3));
        assert_eq!(queue.put_back(taken), 0);
        assert_eq!(bodies(&queue), ["0", "1", "2", "3"]);
    }

    #[test]
    fn a_record_is_an_event_with_typed_attributes() {
        let record = record(&event(4), 9);
        assert_eq!((record.event_name.as_str(), record.severity_number), ("graylag.condition.changed", 13));
        let values: Vec<_> = record.attributes.into_iter().map(|a| a.value.unwrap().value.unwrap()).collect();
        assert_eq!(values, [any_value::Value::IntValue(7), any_value::Value::DoubleValue(0.5)]);
    }
}
