graph
[
  Creator "Gephi"
  directed 1
  node
  [
    id age
    label "Age"
    graphics
    [
      x -12.5
      y 0.0
      z 0.0
      w 10.0
      h 10.0
      d 10.0
      fill "#000000"
    ]
  ]
  node
  [
    id smoker
    label "Smoker"
    graphics
    [
      x -12.5
      y 1.0
      z 0.0
      w 10.0
      h 10.0
      d 10.0
      fill "#000000"
    ]
  ]
  node
  [
    id sick
    label "Sick"
    graphics
    [
      x -12.5
      y 2.0
      z 0.0
      w 10.0
      h 10.0
      d 10.0
      fill "#000000"
    ]
  ]
  node
  [
    id fever
    label "Fever"
    graphics
    [
      x -12.5
      y 3.0
      z 0.0
      w 10.0
      h 10.0
      d 10.0
      fill "#000000"
    ]
  ]
  node
  [
    id pulse
    label "Pulse"
    graphics
    [
      x -12.5
      y 4.0
      z 0.0
      w 10.0
      h 10.0
      d 10.0
      fill "#000000"
    ]
  ]
  edge
  [
    id 0
    source age
    target sick
    value 1.0
    directed 0
    fill "#000000"
  ]
  edge
  [
    id 1
    source sick
    target fever
    value 1.0
    directed 1
    fill "#000000"
  ]
  edge
  [
    id 2
    source sick
    target pulse
    value 1.0
    directed 1
    fill "#000000"
  ]
  edge
  [
    id 3
    source smoker
    target pulse
    value 1.0
    directed 1
    fill "#000000"
  ]
]
