import sys

from clients.runner import main

sys.exit(main())
