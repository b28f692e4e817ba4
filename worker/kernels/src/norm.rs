//! Batch norms: statistics of a batch, what they make of a map, and what comes back through them.

/// What is added to a variance before its root is taken.
pub const EPSILON: f64 = 1e-5;

/// Sums over the pixels of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    /// Σ x; of a gradient, Σ dz.
    pub sum: f64,
    /// Σ x²; of a gradient, Σ dz·(x − mean).
    pub product: f64,
}

impl Sums {
    /// Adds others.
    pub fn add(&mut self, sum: f32, product: f32) {
        self.sum += f64::from(sum);
        self.product += f64::from(product);
    }
}

/// The sums of all threads, in their order.
pub fn total(threads: &[Vec<Sums>]) -> Vec<Sums> {
    let channels = threads.first().map_or(0, Vec::len);
    let mut total = vec![Sums::default(); channels];
    for sums in threads {
        for (total, sums) in total.iter_mut().zip(sums) {
            total.sum += sums.sum;
            total.product += sums.product;
        }
    }
    total
}

/// Mean and variance of a channel over a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// Its mean.
    pub mean: f64,
    /// Its variance, biased.
    pub variance: f64,
}

impl Moments {
    /// From the sums over `count` pixels.
    pub fn of(sums: Sums, count: f64) -> Moments {
        let mean = sums.sum / count;
        Moments { mean, variance: (sums.product / count - mean * mean).max(0.0) }
    }

    /// 1 / sqrt(variance + ε).
    pub fn inverse_deviation(self) -> f64 {
        1.0 / (self.variance + EPSILON).sqrt()
    }
}

/// A batch norm's parameters, a channel each.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// γ
    pub weight: &'a [f32],
    /// β
    pub bias: &'a [f32],
}

/// x ↦ scale·x + shift, a channel each: what a batch norm is once its statistics are known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Affine {
    /// γ / sqrt(variance + ε)
    pub scale: Vec<f32>,
    /// β − mean · scale
    pub shift: Vec<f32>,
    /// mean
    pub mean: Vec<f32>,
}

impl Affine {
    /// A batch norm with these statistics.
    pub fn new(norm: Norm<'_>, moments: &[Moments]) -> Affine {
        let mut affine = Affine::default();
        for ((&weight, &bias), moments) in norm.weight.iter().zip(norm.bias).zip(moments) {
            let scale = f64::from(weight) * moments.inverse_deviation();
            affine.scale.push(scale as f32);
            affine.shift.push((f64::from(bias) - moments.mean * scale) as f32);
            affine.mean.push(moments.mean as f32);
        }
        affine
    }
}

/// The gradient of what entered a batch norm, from that of what left it: dx = direct·dz + own·(x − mean) + constant, a channel
/// each. The mean stands apart: its product with `own` in the constant would put the same error of rounding on every pixel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Upstream {
    /// On dz.
    pub direct: Vec<f32>,
    /// On x, less its mean.
    pub own: Vec<f32>,
    /// The mean.
    pub mean: Vec<f32>,
    /// Added.
    pub constant: Vec<f32>,
}

impl Upstream {
    /// Through a batch norm of weight γ over `count` pixels, whose dz has these sums (of products with x − mean).
    ///
    /// With x̂ = (x − mean)·r and r = 1/sqrt(variance + ε): dx = γ·r·(dz − Σdz/count − x̂·Σ(dz·x̂)/count).
    pub fn through(
        weights: impl Iterator<Item = f64>,
        moments: &[Moments],
        sums: &[Sums],
        count: f64,
    ) -> Upstream {
        let mut upstream = Upstream::default();
        for ((weight, moments), sums) in weights.zip(moments).zip(sums) {
            let inverse = moments.inverse_deviation();
            let direct = weight * inverse;
            let own = -direct * inverse * inverse * sums.product / count;
            upstream.direct.push(direct as f32);
            upstream.own.push(own as f32);
            upstream.mean.push(moments.mean as f32);
            upstream.constant.push((-direct * sums.sum / count) as f32);
        }
        upstream
    }
}

/// dγ and dβ, from the sums of dz.
pub fn parameter_gradients(sums: &[Sums], moments: &[Moments]) -> impl Iterator<Item = (f32, f32)> {
    sums.iter()
        .zip(moments)
        .map(|(sums, moments)| ((sums.product * moments.inverse_deviation()) as f32, sums.sum as f32))
}
