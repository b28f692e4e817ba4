//! A network's weights in the order in which the inner loops of a CPU read them.

use crate::buffer::Weights;
use crate::head::Head;
use crate::instructions::Core;
use crate::layout::{Along, Layout};
use crate::network::{self, Network};
use crate::pointwise::{self, planes::Pointwise};
use crate::spatial;
use crate::stem::Stem;

/// A network, packed.
#[derive(Debug)]
pub(crate) struct Packed {
    pub core: Core,
    pub stem: Stem,
    pub blocks: Vec<Block>,
    pub head: Head,
    pub size: usize,
    pub classes: usize,
}

/// A dense block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Edge of its maps, in pixels.
    pub size: usize,
    pub along: Along,
    /// Most outputs of a 1×1 convolution.
    pub middle: usize,
    pub layers: Vec<Layer>,
    /// The convolution of a DenseNet's transition.
    pub transition: Option<Pointwise>,
}

/// A dense layer.
#[derive(Debug)]
pub(crate) enum Layer {
    /// With vectors of pixels.
    Planes(Pointwise, spatial::planes::Spatial),
    /// With vectors of outputs.
    Blocks(pointwise::channels::Pointwise, spatial::blocks::Spatial),
}

impl Packed {
    pub fn new(network: &Network, core: Core) -> Packed {
        let mut packed = Packed {
            core,
            stem: Stem::new(&network.stem, network.size, core.lanes),
            blocks: network.blocks.iter().map(|block| Block::new(block, core)).collect(),
            head: Head::new(&network.last, &network.classifier, core.lanes),
            size: network.size,
            classes: network.classes(),
        };
        let layers = packed.blocks.iter_mut().flat_map(|block| &mut block.layers);
        Weights::gather(layers.flat_map(Layer::many_weights).chain(packed.head.weights()).collect());
        packed
    }

    /// Floats of an image.
    pub fn image(&self) -> usize {
        3 * self.size * self.size
    }
}

impl Block {
    fn new(block: &network::Block, core: Core) -> Block {
        let along = Layout::along(block, core);
        let layer = |layer: &network::Layer| Layer::new(layer, along, core);
        Block {
            size: block.size,
            along,
            middle: block.layers.iter().map(|layer| layer.pointwise.outputs).max().unwrap_or(0),
            layers: block.layers.iter().map(layer).collect(),
            transition: block.transition.as_ref().map(|conv| Pointwise::new(conv, core)),
        }
    }
}

impl Layer {
    /// Those of small maps, of which there are many.
    fn many_weights(&mut self) -> Vec<&mut Weights> {
        match self {
            Layer::Planes(..) => Vec::new(),
            Layer::Blocks(pointwise, spatial) => vec![pointwise.weights(), spatial.weights()],
        }
    }

    pub fn new(layer: &network::Layer, along: Along, core: Core) -> Layer {
        let (conv, conv_3x3) = (&layer.pointwise, &layer.spatial);
        match along {
            Along::Plane | Along::Rows | Along::Pairs => Layer::Planes(
                Pointwise::new(conv, core),
                spatial::planes::Spatial::new(conv_3x3, along, core.many_registers),
            ),
            Along::Channels(_) | Along::Squares(_) => {
                let pointwise = pointwise::channels::Pointwise::new(conv, along.side(), core);
                let order = &pointwise.order;
                let spatial = spatial::blocks::Spatial::new(conv_3x3, order, along, core);
                Layer::Blocks(pointwise, spatial)
            }
        }
    }
}
