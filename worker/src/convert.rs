//! From learned group convolutions to group convolutions (paper, section 3.2).

use cnx_proto::Spec;

use crate::failure::Result;
use crate::model::{Form, Network};

/// The network that computes the same with group convolutions over gathered inputs. Exact, but for the classifier, which
/// keeps half of its inputs.
///
/// # Errors
/// When not exactly 1/C of the weights are left (condensing is not over), or nothing condenses.
pub fn convert(network: &Network, spec: &Spec) -> Result<Network> {
    let tensors = network.converted_state()?;
    let mut converted = Network::new(spec, Form::Converted, network.state().device())?;
    converted.load(&tensors)?;
    Ok(converted)
}
