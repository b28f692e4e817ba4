//! Images: how they lie on disk, and how they become what a network takes.
//!
//! * [`folder`]: class folders, as ImageNet is unpacked
//! * [`pack`]: the same in a few large files with an index
//! * [`decode`], [`crop`], [`resize`]: from the bytes of a file to the pixels of a crop, as torchvision does it
//! * [`raster`]: pixels in memory; [`normalise`]: as the numbers that a network takes

pub mod crop;
pub mod decode;
pub mod folder;
pub mod normalise;
pub mod pack;
pub mod raster;
pub mod resize;
