//! What end-to-end runs need of this program: systems to run against, and looks at the
//! tree that is tested.

pub mod checkout;
pub mod compare;
pub mod environments;
pub mod images;
pub mod pin;
pub mod tree;
