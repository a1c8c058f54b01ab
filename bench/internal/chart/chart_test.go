package chart

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/svg"
)

func number(v float64) *float64 { return &v }

func TestAChartHasEveryBarWithItsNumber(t *testing.T) {
	c := Chart{Title: "Time", Subtitle: "of a <machine>", Columns: 2, LabelWidth: 80, Panels: []Panel{
		{Title: "x86", Bars: []Bar{
			{Label: "ours", Median: number(12), Min: number(10), Max: number(14), Ours: true},
			{Label: "other", Median: number(120), Min: number(110), Max: number(140)},
			{Label: "broken"},
		}},
		{Title: "arm", Decimals: 1, Bars: []Bar{{Label: "ours", Median: number(1.25)}}},
		{Title: "arm64", Bars: []Bar{{Label: "zero", Median: number(0), Min: number(0), Max: number(0)}}},
	}}
	for _, theme := range svg.Themes {
		picture := string(c.SVG(theme))
		for _, text := range []string{">Time<", "of a &lt;machine&gt;", ">x86<", ">ours<", ">12<", ">other<", ">120<", ">broken<", ">failed<", ">1.2<", ">zero<", ">0<"} {
			require.Contains(t, picture, text)
		}
		require.NotContains(t, picture, "NaN")
		require.Equal(t, 1, strings.Count(picture, theme.Accent+`" rx`), "only ours stands out")
	}
}

func TestABarIsAsLongAsItsMedianIsGreat(t *testing.T) {
	c := Chart{Columns: 1, LabelWidth: 100, Panels: []Panel{{Bars: []Bar{
		{Label: "a", Median: number(50), Min: number(50), Max: number(50)},
		{Label: "b", Median: number(100), Min: number(100), Max: number(100)},
	}}}}
	var widths []float64
	for _, m := range regexp.MustCompile(`width="([0-9.]+)" height="14"`).FindAllStringSubmatch(string(c.SVG(svg.Light)), -1) {
		w, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		widths = append(widths, w)
	}
	require.Len(t, widths, 2)
	require.InDelta(t, 2, widths[1]/widths[0], 0.02)
}

func TestPanelsDoNotOverlap(t *testing.T) {
	c := Chart{Columns: 2, Panels: []Panel{{Bars: make([]Bar, 5)}, {}, {Bars: make([]Bar, 1)}, {NewRow: true}}}
	places, width, height := c.layout()
	require.Equal(t, []place{{20, 58}, {372, 58}, {20, 210}, {20, 282}}, places)
	require.Equal(t, 722.0, width)
	require.Equal(t, 332.0, height)
}
