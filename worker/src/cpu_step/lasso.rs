//! The group lasso of a learned group convolution, on the host.

/// Σ over groups and inputs of sqrt(Σ w², at least 1e-6), w being the weights [outputs, inputs] that the group still uses from the
/// input (paper, section 3.1). Adds λ times its gradient to `gradient`.
pub fn lasso(weights: &[f32], kept: &[Vec<usize>], inputs: usize, lambda: f64, gradient: &mut [f32]) -> f64 {
    let groups = kept.len().max(1);
    let rows = weights.len() / inputs.max(1);
    let mut sum = 0.0;
    for (group, kept) in kept.iter().enumerate() {
        // An input that was dropped counts with the least that a root is taken of.
        sum += (inputs - kept.len()) as f64 * LEAST.sqrt();
        for &input in kept {
            let places = || (group..rows).step_by(groups).map(|row| row * inputs + input);
            let square: f64 = places().map(|at| f64::from(weights[at]).powi(2)).sum();
            let root = square.max(LEAST).sqrt();
            sum += root;
            if square >= LEAST {
                places().for_each(|at| gradient[at] += (lambda * f64::from(weights[at]) / root) as f32);
            }
        }
    }
    sum
}

const LEAST: f64 = 1e-6;
