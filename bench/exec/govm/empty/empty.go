// Package empty has one empty test, which govmtest runs in a machine.
package empty
