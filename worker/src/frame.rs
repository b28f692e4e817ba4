//! Length-delimited messages, read without a buffer: what follows them is left where it is.

use std::io::{self, Read};

/// The bytes of one message; none at the end of the input.
///
/// # Errors
/// When the input ends within a message, or its length is malformed or above `limit`.
pub fn read(input: &mut impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = 0usize;
    for shift in (0..).step_by(7) {
        let mut byte = [0];
        match input.read_exact(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && shift == 0 => return Ok(None),
            read => read?,
        }
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
        if shift >= 28 {
            return Err(io::Error::other("its length is malformed"));
        }
    }
    if length > limit {
        return Err(io::Error::other(format!("found {length} bytes, at most {limit} are accepted")));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_and_what_follows_is_left() {
        let mut bytes = vec![0xac, 0x02];
        bytes.extend([7; 300]);
        bytes.push(42);
        let mut input = bytes.as_slice();
        assert_eq!(read(&mut input, 300).unwrap(), Some(vec![7; 300]));
        assert_eq!(input, [42]);
    }

    #[test]
    fn an_end_is_told_from_a_message_that_is_cut_or_too_long() {
        assert_eq!(read(&mut [].as_slice(), 10).unwrap(), None);
        for mut bytes in [&[5, 1][..], &[0x80], &[11], &[0xff, 0xff, 0xff, 0xff, 0x7f], &[0xff; 20]] {
            assert!(read(&mut bytes, 10).is_err(), "{bytes:?}");
        }
    }
}
