//! Keeps a page of a reply within a size.

use prost::Message;

use crate::store::Part;

/// Bytes of rows in one reply; a row larger than that goes alone. Far below what a message may hold
/// ([`cnx_proto::state_dir::MAX_MESSAGE_BYTES`]): a reply is held in memory several times on its way.
const MAX_BYTES: usize = 4 << 20;

/// Leaves out what does not fit, at the end where the next page begins, and tells of it.
pub fn fit<M: Message>(rows: &mut Vec<M>, part: Part, left_out: impl FnOnce(&[M])) {
    let sizes: Vec<usize> = rows.iter().map(Message::encoded_len).collect();
    match part {
        Part::After(_) => left_out(&rows.split_off(fitting(sizes.iter()))),
        Part::Before(_) => {
            let rest = rows.split_off(rows.len() - fitting(sizes.iter().rev()));
            left_out(&std::mem::replace(rows, rest));
        }
    }
}

/// How many of these sizes fit, at least one.
fn fitting<'a>(sizes: impl Iterator<Item = &'a usize>) -> usize {
    let mut bytes = 0;
    let within = |size: &&usize| {
        let first = bytes == 0;
        bytes += **size;
        first || bytes <= MAX_BYTES
    };
    sizes.take_while(within).count()
}

#[cfg(test)]
mod tests {
    use cnx_proto::v1::Event;

    use super::*;

    fn fitted(sizes: &[usize], part: Part) -> (Vec<u64>, usize) {
        let row = |(i, &size): (usize, &usize)| Event {
            at_ms: i as u64,
            what: "x".repeat(size),
            ..Event::default()
        };
        let mut rows: Vec<Event> = sizes.iter().enumerate().map(row).collect();
        let mut left_out = 0;
        fit(&mut rows, part, |rows| left_out = rows.len());
        (rows.iter().map(|row| row.at_ms).collect(), left_out)
    }

    #[test]
    fn what_does_not_fit_is_left_for_the_next_page() {
        let third = MAX_BYTES / 3;
        assert_eq!(fitted(&[third; 5], Part::After(0)), (vec![0, 1], 3));
        assert_eq!(fitted(&[third; 5], Part::Before(0)), (vec![3, 4], 3));
        assert_eq!(fitted(&[10; 5], Part::Before(0)), (vec![0, 1, 2, 3, 4], 0));
        assert_eq!(fitted(&[], Part::After(0)), (vec![], 0));
    }

    #[test]
    fn a_row_that_is_too_large_goes_alone() {
        assert_eq!(fitted(&[2 * MAX_BYTES, 10], Part::After(0)), (vec![0], 1));
        assert_eq!(fitted(&[10, 2 * MAX_BYTES], Part::Before(0)), (vec![1], 1));
    }
}
