//! Several columns as one value of bytes per row, in Arrow's row format: the form in which keys and states are stored.

use arrow::array::ArrayRef;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};

use crate::Result;

/// Encodes and decodes rows of fixed column types.
pub(crate) struct RowCodec {
    types: Vec<DataType>,
    /// `None` without columns: Arrow has no row format for them.
    converter: Option<RowConverter>,
}

/// Encoded rows.
pub(crate) struct EncodedRows(Option<Rows>);

impl EncodedRows {
    /// The bytes of a row. Rows are equal if their bytes are.
    pub(crate) fn row(&self, index: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(index).data())
    }
}

impl RowCodec {
    /// A codec for columns of these types.
    ///
    /// # Errors
    /// For a type that Arrow's row format does not know.
    pub(crate) fn new(types: Vec<DataType>) -> Result<Self> {
        Self::sorted(types.into_iter().map(|data_type| (data_type, SortOptions::default())).collect())
    }

    /// A codec for columns of these types whose rows sort as bytes the way that is asked for.
    ///
    /// # Errors
    /// For a type that Arrow's row format does not know.
    pub(crate) fn sorted(columns: Vec<(DataType, SortOptions)>) -> Result<Self> {
        let field =
            |(data_type, options): &(DataType, SortOptions)| SortField::new_with_options(data_type.clone(), *options);
        let converter = match &columns[..] {
            [] => None,
            columns => Some(RowConverter::new(columns.iter().map(field).collect())?),
        };
        Ok(RowCodec { types: columns.into_iter().map(|(data_type, _)| data_type).collect(), converter })
    }

    /// Encodes columns of equal lengths.
    ///
    /// # Errors
    /// When a column cannot be brought to its type.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<EncodedRows> {
        let Some(converter) = &self.converter else { return Ok(EncodedRows(None)) };
        Ok(EncodedRows(Some(converter.convert_columns(&self.typed(columns)?)?)))
    }

    /// The columns of encoded rows.
    ///
    /// # Errors
    /// When these are not the bytes of such rows.
    pub(crate) fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let (parser, rows): (_, Vec<&[u8]>) = (converter.parser(), rows.into_iter().collect());
        let columns = converter.convert_rows(rows.into_iter().map(|row| parser.parse(row)))?;
        // A dictionary comes back as its values.
        self.typed(&columns)
    }

    fn typed(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let typed = |(column, to): (&ArrayRef, &DataType)| match column.data_type() == to {
            true => Ok(column.clone()),
            false => Ok(cast(column, to)?),
        };
        columns.iter().zip(&self.types).map(typed).collect()
    }
}
