package empty

import "testing"

func TestEmpty(*testing.T) {}
