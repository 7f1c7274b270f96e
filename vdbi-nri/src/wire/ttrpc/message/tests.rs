use proptest::prelude::*;

use super::*;

const LIMIT: usize = 30;

fn message(stream: u32, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let message = Message { stream, kind, payload: Bytes::copy_from_slice(payload) };
    [message.header().as_slice(), payload].concat()
}

fn received(pieces: &[&[u8]]) -> Vec<Incoming> {
    let mut messages = Messages::new(LIMIT);
    let mut received = Vec::new();
    for piece in pieces {
        messages.extend(BytesMut::from(*piece));
        received.extend(std::iter::from_fn(|| messages.next()));
    }
    received
}

fn expected(stream: u32, payload: &[u8]) -> Incoming {
    let kind = Kind::Request;
    if payload.len() > LIMIT {
        Incoming::TooLong { stream, kind, length: payload.len() }
    } else {
        Incoming::Message(Message { stream, kind, payload: Bytes::copy_from_slice(payload) })
    }
}

proptest! {
    /// Messages that are too long among them: what follows one is found.
    #[test]
    fn a_byte_stream_is_taken_apart_alike_however_it_arrives(
        sent in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..2 * LIMIT)), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes: Vec<u8> =
            sent.iter().flat_map(|(stream, payload)| message(*stream, Kind::Request, payload)).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();

        let expected: Vec<Incoming> = sent.iter().map(|(stream, payload)| expected(*stream, payload)).collect();
        prop_assert_eq!(received(&pieces), expected);
    }

    #[test]
    fn whatever_arrives_is_taken(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        received(&pieces);
    }
}

#[test]
fn the_longest_message_is_taken_and_a_longer_one_is_told() {
    let (longest, longer) = ([1; LIMIT], [2; LIMIT + 1]);
    let bytes = [message(1, Kind::Request, &longest), message(3, Kind::Request, &longer)].concat();
    assert_eq!(received(&[&bytes]), [expected(1, &longest), expected(3, &longer)]);
}

#[test]
fn kinds_are_told_apart() {
    for kind in [Kind::Request, Kind::Response, Kind::Other(3), Kind::Other(255)] {
        let received = received(&[&message(1, kind, b"x")]);
        assert!(
            matches!(&received[..], [Incoming::Message(message)] if message.kind == kind),
            "{received:?}"
        );
    }
}
