import sys

from suites.runner import main

sys.exit(main())
