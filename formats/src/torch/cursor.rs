//! The bytes of a pickle, taken one after the other.

use super::pickle::{Span, Value};
use crate::ReadError;
use crate::error::shown;

type Result<T> = std::result::Result<T, ReadError>;

/// A place in a pickle.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    /// Bytes that have been taken.
    pub at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of bytes whose number fits into 32 bits.
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// The bytes of a text.
    pub fn text(&self, span: Span) -> &'a [u8] {
        &self.bytes[span.at as usize..][..span.len as usize]
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let array = *self.bytes[self.at..].first_chunk().ok_or_else(cut)?;
        self.at += N;
        Ok(array)
    }

    /// A length of so many bytes, and then as many bytes.
    pub fn span(&mut self, length_bytes: usize) -> Result<Span> {
        let len = match length_bytes {
            1 => self.byte()?.into(),
            4 => u32::from_le_bytes(self.array()?).into(),
            _ => u64::from_le_bytes(self.array()?),
        };
        let left = self.bytes.len() - self.at;
        let len = usize::try_from(len).ok().filter(|&len| len <= left).ok_or_else(cut)?;
        // Both fit: the pickle is at most 2³² − 1 bytes long.
        let span = Span { at: self.at as u32, len: len as u32 };
        self.at += len;
        Ok(span)
    }

    /// A whole number, little-endian, in two's complement.
    pub fn long(&mut self, length_bytes: usize) -> Result<Value> {
        let span = self.span(length_bytes)?;
        let bytes = self.text(span);
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        match extended.get_mut(..bytes.len()) {
            Some(low) => low.copy_from_slice(bytes),
            None => return Ok(Value::Long(span)),
        }
        Ok(Value::Int(i64::from_le_bytes(extended)))
    }

    /// The bytes up to the end of the line.
    pub fn line(&mut self) -> Result<&'a [u8]> {
        const MOST: usize = 1000;
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(MOST)];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| {
            ReadError::damaged(format!("its pickle asks for a callable of the name {}", shown(rest)))
        })?;
        self.at += end + 1;
        Ok(&rest[..end])
    }
}

fn cut() -> ReadError {
    ReadError::damaged("it ends in the middle of its pickle")
}
