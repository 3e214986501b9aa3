"""Tables, files and loaders to tensors and back."""

from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.image_files import image_table
from pyro_cama.data.open_stream import DataSource
from pyro_cama.data.streams import Stream
from pyro_cama.data.tables import Table

__all__ = ["Batch", "DataSource", "Stream", "Table", "TableEncoder", "image_table"]
