//! Passing on: two clusters that are not linked reach each other through a third that is linked with both. Nobody does so
//! unless all three are told to: the two in the middle's links by `relay`, each end by naming the other in `reach`.
//!
//! The middle tells each end what the other wants, as routes whose ids say through whom they come ([`via`]); what an end then
//! sends is passed on to the other, with the list of the clusters that it came through (key 1011 of `extra`). An end takes
//! what comes from or through those alone that it named, and nobody takes what came through itself: neither routes nor
//! messages can go round. A cluster names each other one in the `reach` of one link at most, and none that it is linked with:
//! there is one way between any two, so that what goes over more than one link stays in order and comes once.

use smallvec::SmallVec;

use crate::link::etf;
use crate::link::etf::Head;
use crate::link::etf::Reader;
use crate::link::extension::KEY_PATH;
use crate::link::message;
use crate::link::message::Outgoing;
use crate::link::payload::RouteOp;

/// Through how many clusters something may come.
pub const HOPS_MAX: usize = 8;
/// How many clusters may be reached through one peer.
pub const REACH_MAX: usize = 64;
/// What the id of a route begins with that is told for somebody else.
const VIA: &str = "$via/";

/// Clusters that something came through.
pub type Path<'a> = SmallVec<[&'a str; 4]>;

/// The id under which we tell others of the route with this id, which is a wish of `peer`.
#[must_use]
pub fn via(peer: &str, id: &str) -> Box<str> {
    format!("{VIA}{peer}/{id}").into()
}

/// Through whom the route with this id comes, the nearest first; nobody, if its teller wants it itself.
#[must_use]
pub fn path(id: &str) -> Path<'_> {
    let mut path = Path::new();
    let mut rest = id;
    while let Some((name, inner)) = rest.strip_prefix(VIA).and_then(|rest| rest.split_once('/')) {
        path.push(name);
        rest = inner;
    }
    path
}

/// Whether `own` takes what came through these: it reaches all of them through its peer, and is none of them.
#[must_use]
pub fn is_agreed<S: AsRef<str>>(path: &[&str], own: &str, reach: &[S]) -> bool {
    path.len() <= HOPS_MAX
        && path.iter().all(|name| *name != own && reach.iter().any(|reached| reached.as_ref() == *name))
}

/// Whether a route of a peer is its own wish, or one that `own` takes from it for others.
#[must_use]
pub fn takes(op: &RouteOp<'_>, own: &str, reach: &[String]) -> bool {
    if op.id == op.topic || !op.id.starts_with(VIA.as_bytes()) {
        return true;
    }
    std::str::from_utf8(op.id).is_ok_and(|id| {
        let path = path(id);
        !path.is_empty() && is_agreed(&path, own, reach)
    })
}

/// Appends a message that came through these clusters, the first of them first.
pub fn put(out: &mut Vec<u8>, message: &Outgoing<'_>, path: &[&str]) {
    message::put(out, message);
    out.truncate(out.len() - message::NO_EXTRA_BYTES);
    etf::put_map(out, 1);
    etf::put_integer(out, KEY_PATH);
    etf::put_list(out, u32::try_from(path.len()).unwrap_or(0));
    for name in path {
        etf::put_binary(out, name.as_bytes());
    }
    etf::put_nil(out);
}

/// Reads what [`put`] wrote; `None` if it is no list of at most [`HOPS_MAX`] names.
#[must_use]
pub fn read(mut list: Reader<'_>) -> Option<Path<'_>> {
    let Ok(Head::List(count)) = list.head() else { return None };
    let count = usize::try_from(count).ok().filter(|count| *count <= HOPS_MAX)?;
    (0..count).map(|_| list.text().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::compress;
    use crate::link::message::MessageProperties;
    use crate::mqtt::packet::QoS;

    #[test]
    fn an_id_tells_through_whom_a_route_comes() {
        let id = via("D", &via("E", "$s/g/t/#"));
        assert_eq!(&*id, "$via/D/$via/E/$s/g/t/#");
        assert_eq!(path(&id).as_slice(), ["D", "E"]);
        for plain in ["t/#", "$s/g/t", "$via", "$via/", "$via/x"] {
            assert_eq!(path(plain).len(), 0, "{plain}");
        }
    }

    #[test]
    fn nothing_is_taken_that_came_through_oneself_or_somebody_unnamed() {
        let op = |id: &'static str| RouteOp { delete: false, topic: b"t", id: id.as_bytes() };
        let reach = ["D".to_owned(), "E".to_owned()];
        for (id, taken) in [
            ("t", true),
            ("$s/g/t", true),
            ("$via/D/t", true),
            ("$via/D/$via/E/t", true),
            ("$via/F/t", false),
            ("$via/D/$via/F/t", false),
            ("$via/A/t", false),
            ("$via/D/$via/A/t", false),
            ("$via/", false),
        ] {
            assert_eq!(takes(&op(id), "A", &reach), taken, "{id}");
        }
        let filter = RouteOp { delete: false, topic: b"$via/F/t", id: b"$via/F/t" };
        assert!(takes(&filter, "A", &reach), "a filter may look like it");
        assert!(!is_agreed(&["D"; HOPS_MAX + 1], "A", &reach));
        assert!(!is_agreed(&["A"], "A", &["A"]), "whatever is configured");
    }

    #[test]
    fn a_message_says_through_whom_it_came() {
        let message = Outgoing {
            id: [7; 16],
            qos: QoS::ExactlyOnce,
            from: Some("sensor"),
            username: None,
            peer: None,
            retain: false,
            topic: "t",
            payload: b"x",
            timestamp_ms: 1_800_000_000_000,
            properties: MessageProperties::default(),
        };
        let mut out = Vec::new();
        put(&mut out, &message, &["A", "B"]);
        let read_back = message::parse(compress::open_plain(&out).unwrap()).unwrap();
        assert_eq!(read(read_back.path.unwrap()).unwrap().as_slice(), ["A", "B"]);
        assert_eq!((read_back.topic, read_back.id, read_back.qos), ("t", [7; 16], QoS::ExactlyOnce));
        let mut plain = Vec::new();
        message::put(&mut plain, &message);
        assert_eq!(message::parse(compress::open_plain(&plain).unwrap()).unwrap().path, None);
        let mut long = Vec::new();
        put(&mut long, &message, &["A"; HOPS_MAX + 1]);
        let read_back = message::parse(compress::open_plain(&long).unwrap()).unwrap();
        assert_eq!(read(read_back.path.unwrap()), None);
    }
}
