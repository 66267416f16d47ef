import sys

from litedetr.cli import main

sys.exit(main())
