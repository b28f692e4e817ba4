//! From pixels of channels side by side to planes.

// A check for each vector costs as much as moving it.
#![allow(unsafe_code)]

use pulp::Simd;

/// Edge of the squares that vectors turn over.
const EDGE: usize = 8;

/// Pixels of `width` floats each, from the beginning of `from`, to the beginnings of `planes` planes, `plane` floats from one to the next.
/// Behind as many pixels, up to 7 more are read and written.
#[inline(always)]
pub(crate) fn transpose<S: Simd>(
    from: &[f32],
    (pixels, width): (usize, usize),
    to: &mut [f32],
    (planes, plane): (usize, usize),
) {
    #[cfg(target_arch = "x86_64")]
    if let (true, true, Some(simd)) =
        (S::F32_LANES >= EDGE, planes.is_multiple_of(EDGE), pulp::x86::V3::try_new())
    {
        for (channel, to) in (0..planes).step_by(EDGE).zip(to.chunks_mut(EDGE * plane)) {
            for pixel in (0..pixels).step_by(EDGE) {
                turn(simd, &from[pixel * width + channel..], width, &mut to[pixel..], plane);
            }
        }
        return;
    }
    for channel in 0..planes {
        let to = &mut to[channel * plane..][..pixels];
        for (to, from) in to.iter_mut().zip(from.chunks_exact(width)) {
            *to = from[channel];
        }
    }
}

/// A square of 8 by 8 floats, whose rows are `width` floats apart, and `plane` floats where they go.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turn(simd: pulp::x86::V3, from: &[f32], width: usize, to: &mut [f32], plane: usize) {
    use std::arch::x86_64::__m256;

    assert!(width <= from.len() && (EDGE - 1) * width + EDGE <= from.len());
    assert!(plane <= to.len() && (EDGE - 1) * plane + EDGE <= to.len());
    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
    let avx = simd.avx;
    // A loop: a closure would not be made part of it.
    let mut r = [avx._mm256_setzero_ps(); EDGE];
    for i in 0..EDGE {
        // SAFETY: so many floats may be read there.
        r[i] = unsafe { from.add(i * width).cast::<__m256>().read_unaligned() };
    }
    let low = |a, b| avx._mm256_unpacklo_ps(a, b);
    let high = |a, b| avx._mm256_unpackhi_ps(a, b);
    let t = [
        low(r[0], r[1]),
        high(r[0], r[1]),
        low(r[2], r[3]),
        high(r[2], r[3]),
        low(r[4], r[5]),
        high(r[4], r[5]),
        low(r[6], r[7]),
        high(r[6], r[7]),
    ];
    let first = |a, b| avx._mm256_shuffle_ps::<0x44>(a, b);
    let last = |a, b| avx._mm256_shuffle_ps::<0xee>(a, b);
    let u = [
        first(t[0], t[2]),
        last(t[0], t[2]),
        first(t[1], t[3]),
        last(t[1], t[3]),
        first(t[4], t[6]),
        last(t[4], t[6]),
        first(t[5], t[7]),
        last(t[5], t[7]),
    ];
    for i in 0..EDGE / 2 {
        let (upper, lower) = (u[i], u[i + EDGE / 2]);
        let halves = [
            avx._mm256_permute2f128_ps::<0x20>(upper, lower),
            avx._mm256_permute2f128_ps::<0x31>(upper, lower),
        ];
        // SAFETY: so many floats may be written there.
        unsafe {
            to.add(i * plane).cast::<__m256>().write_unaligned(halves[0]);
            to.add((i + EDGE / 2) * plane).cast::<__m256>().write_unaligned(halves[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    struct Turn<'a>(&'a [f32], usize, usize, &'a mut [f32], usize);

    impl WithSimd for Turn<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            transpose::<S>(self.0, (self.1, self.2), self.3, (self.2, self.4));
        }
    }

    #[test]
    fn pixels_become_planes() {
        for (pixels, width) in [(1, 8), (8, 16), (49, 16), (13, 4), (196, 8)] {
            let plane = pixels + 9;
            let from: Vec<f32> = (0..(pixels + 7) * width).map(|i| i as f32).collect();
            let mut to = vec![-1.0; width * plane];
            Arch::new().dispatch(Turn(&from, pixels, width, &mut to, plane));
            for (channel, to) in to.chunks_exact(plane).enumerate() {
                let expected: Vec<f32> = (0..pixels).map(|p| from[p * width + channel]).collect();
                assert_eq!(to[..pixels], expected, "{pixels} {width} {channel}");
            }
        }
    }
}
