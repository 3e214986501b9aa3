Creator "Cytoscape"
Version 1.0
graph	[
	node	[
		root_index	-1
		id	-1
		graphics	[
			x	-96.0
			y	-67.0
			w	40.0
			h	40.0
			fill	"#ff9999"
			type	"ellipse"
			outline	"#666666"
			outline_width	1.5
		]
		label	"age"
	]
	node	[
		root_index	-2
		id	-2
		graphics	[
			x	-96.0
			y	-67.0
			w	40.0
			h	40.0
			fill	"#ff9999"
			type	"ellipse"
			outline	"#666666"
			outline_width	1.5
		]
		label	"smoker"
	]
	node	[
		root_index	-3
		id	-3
		graphics	[
			x	-96.0
			y	-67.0
			w	40.0
			h	40.0
			fill	"#ff9999"
			type	"ellipse"
			outline	"#666666"
			outline_width	1.5
		]
		label	"sick"
	]
	node	[
		root_index	-4
		id	-4
		graphics	[
			x	-96.0
			y	-67.0
			w	40.0
			h	40.0
			fill	"#ff9999"
			type	"ellipse"
			outline	"#666666"
			outline_width	1.5
		]
		label	"fever"
	]
	node	[
		root_index	-5
		id	-5
		graphics	[
			x	-96.0
			y	-67.0
			w	40.0
			h	40.0
			fill	"#ff9999"
			type	"ellipse"
			outline	"#666666"
			outline_width	1.5
		]
		label	"pulse"
	]
	edge	[
		root_index	-1
		target	-3
		source	-1
		graphics	[
			width	1.5
			fill	"#0000ff"
			type	"line"
			Line	[
			]
			source_arrow	0
			target_arrow	3
		]
		label	"DirectedEdge"
	]
	edge	[
		root_index	-2
		target	-4
		source	-3
		graphics	[
			width	1.5
			fill	"#0000ff"
			type	"line"
			Line	[
			]
			source_arrow	0
			target_arrow	3
		]
		label	"DirectedEdge"
	]
	edge	[
		root_index	-3
		target	-5
		source	-3
		graphics	[
			width	1.5
			fill	"#0000ff"
			type	"line"
			Line	[
			]
			source_arrow	0
			target_arrow	3
		]
		label	"DirectedEdge"
	]
	edge	[
		root_index	-4
		target	-5
		source	-2
		graphics	[
			width	1.5
			fill	"#0000ff"
			type	"line"
			Line	[
			]
			source_arrow	0
			target_arrow	3
		]
		label	"DirectedEdge"
	]
]
