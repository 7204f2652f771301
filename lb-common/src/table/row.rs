//! How the types of rows are declared, so that their layout is proved.

/// A key or value of a map: plain bytes without padding.
///
/// Implemented by [`table_type!`], which proves the absence of padding, and for array indices.
pub trait TableType:
    Copy + Send + Sync + zerocopy::TryFromBytes + zerocopy::Immutable + zerocopy::KnownLayout + 'static
{
    /// Evaluated where the type is written to a map. Fails the build if the compiler added padding.
    const NO_PADDING: ();
}

/// The index of an array.
impl TableType for u32 {
    const NO_PADDING: () = ();
}

/// Declares map structs: `repr(C)`, comparable, and proved to have no hidden padding.
macro_rules! table_type {
    ($( $(#[$meta:meta])* pub struct $name:ident $(<$addr:ident>)? { $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty, )* } )*) => { $(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(zerocopy::TryFromBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        pub struct $name $(<$addr>)? { $( $(#[$fmeta])* pub $field: $ty, )* }

        impl $(<$addr: $crate::addr::Addr>)? $crate::table::TableType for $name $(<$addr>)? {
            const NO_PADDING: () = assert!(
                size_of::<Self>() == 0 $( + size_of::<$ty>() )*,
                "hidden padding in a map type: add an explicit pad field",
            );
        }
    )* };
}
pub(super) use table_type;

/// Declares an enum of a map value: one byte, printed by name in a dump.
macro_rules! table_enum {
    ($( $(#[$meta:meta])* pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $value:expr, )* } )*) => { $(
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(zerocopy::TryFromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[allow(clippy::upper_case_acronyms, reason = "printed by bpftool as the API spells them")]
        pub enum $name { $( $(#[$vmeta])* $variant = $value, )* }
    )* };
}
pub(super) use table_enum;
