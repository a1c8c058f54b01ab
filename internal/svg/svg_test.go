package svg

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPictureIsXMLWhateverItsTextIs(t *testing.T) {
	for _, theme := range Themes {
		p := New(theme, 100, 50, `a < "b" & c`)
		p.Rect(1, 2, 3, 4, Box{Stroke: p.Frame, Radius: 2, Dashed: true})
		p.Arrow(10, 10, 90, 10, true, p.Accent)
		p.Arrow(10, 40, 10, 20, false, p.Accent)
		p.Text(5, 5, Font{Size: 12, Colour: p.Ink, Anchor: "middle", Bold: true, Mono: true}, "  </text> & 'quotes' µs")
		text := p.Bytes()
		dec := xml.NewDecoder(bytes.NewReader(text))
		var found string
		for {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if data, ok := token.(xml.CharData); ok {
				found += string(data)
			}
		}
		require.Contains(t, found, "  </text> & 'quotes' µs")
		require.Contains(t, found, `a < "b" & c`)
	}
}

func TestTextCanBeReadInBothThemes(t *testing.T) {
	for _, theme := range Themes {
		for name, colour := range map[string]string{"ink": theme.Ink, "muted": theme.Muted, "accent": theme.Accent, "failed": theme.Failed} {
			for _, ground := range []string{theme.Background, theme.Surface, theme.AccentSoft} {
				require.GreaterOrEqual(t, contrast(t, colour, ground), 4.5, "%s: %s on %s", theme.Name, name, ground)
			}
		}
		require.GreaterOrEqual(t, contrast(t, theme.Accent, theme.Plain), 1.5, "%s: bars differ", theme.Name)
	}
}

// contrast is the contrast ratio of WCAG 2.
func contrast(t *testing.T, a, b string) float64 {
	high, low := luminance(t, a), luminance(t, b)
	if high < low {
		high, low = low, high
	}
	return (high + 0.05) / (low + 0.05)
}

func luminance(t *testing.T, colour string) float64 {
	var r, g, b uint8
	_, err := fmt.Sscanf(colour, "#%02x%02x%02x", &r, &g, &b)
	require.NoError(t, err)
	linear := func(c uint8) float64 {
		v := float64(c) / 255
		if v <= 0.03928 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(r) + 0.7152*linear(g) + 0.0722*linear(b)
}
